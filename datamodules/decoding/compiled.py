"""Compilation of loops over bytes, for which Python is too slow and numpy has no function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gesso.common.extras import needing

with needing("markers"):
    from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code that releases the GIL, kept beside its file or in the user's cache.

    Where neither can be written to, as in a container's read-only image, each process compiles anew (some seconds).
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no place for its cache
        return njit(nogil=True)(function)
