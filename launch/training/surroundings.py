"""What a training changes in its process beside its own objects, put back for a caller from Python."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gesso.common.randomness import keeping_generators

#: Lightning's variables, such as the seed that it leaves for the processes that it starts.
_PREFIX = "PL_"


@contextmanager
def untouched_process() -> Iterator[None]:
    """Context manager: afterwards, random generators, Lightning's variables and filters of warnings are as before."""
    before = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    try:
        with keeping_generators(), warnings.catch_warnings():
            yield
    finally:
        for name in [name for name in os.environ if name.startswith(_PREFIX)]:
            if name not in before:
                del os.environ[name]
        os.environ.update(before)
