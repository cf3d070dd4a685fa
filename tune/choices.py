"""Values of a sweep's options, apart from the rest so that the command line need not import Ray for them."""

from __future__ import annotations

from typing import Literal

Search = Literal["random", "tpe"]
Scheduler = Literal["none", "asha", "median", "pbt", "pb2"]
#: A metric that every run logs.
SPEED = "images_per_second"
#: Schedulers that copy states between trials.
POPULATION = ("pbt", "pb2")
#: ASHA's default η: one in this many of the trials that reach a rung continues.
REDUCTION = 4.0
