"""Names that a sweep's options take; the command line knows them before it loads Ray."""

from __future__ import annotations

from typing import Literal

Search = Literal["random", "tpe"]
Scheduler = Literal["none", "asha", "median", "pbt", "pb2"]
#: Schedulers that move trials' states about.
POPULATION = ("pbt", "pb2")
#: ASHA: of the trials that reach a rung, one in so many goes on.
REDUCTION = 4.0
