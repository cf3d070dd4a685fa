"""Checks what a Python caller passes: numbers of any library, names out of a few, switches."""

from __future__ import annotations

import argparse
import copy
import operator
import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

from gesso.common.ranges import SEEDS, Range

Name = TypeVar("Name", bound=str)
ANY = Range()


def whole(value: object, name: str, allowed: Range = ANY) -> int:
    """A whole number as Python's own; NumPy's and a tensor's single ones are taken too.

    Args:
        value: the number.
        name: of the argument, for the error.
        allowed: the numbers that it may be.

    Raises:
        ValueError: it is no whole number, or out of the range.

    >>> whole(3, "size", Range(1))
    3
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None or found not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be a whole number{'' if allowed == ANY else f' {allowed}'}")
    return found


def seed(text: str) -> int:
    """A seed on the command line, for argparse's ``type``.

    Raises:
        argparse.ArgumentTypeError: it is no whole number, or no seed.
    """
    try:
        return whole(int(text), "seed", SEEDS)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no seed: it must be a whole number {SEEDS}") from None


def plain(value: object) -> object:
    """A copy of nested data with Python's own kinds: NumPy's numbers and arrays, single tensors and paths become them.

    What is of another kind stays as it is.

    >>> plain({"size": np.int64(3), "path": Path("a")})  # doctest: +SKIP
    {'size': 3, 'path': 'a'}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # Without an import of NumPy or torch, which are heavy.
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else copy.deepcopy(value)


def one_of(value: object, name: str, names: Sequence[Name]) -> Name:
    """A name out of a few.

    Raises:
        ValueError: it is none of them.
    """
    for known in names:
        if isinstance(value, str) and value == known:
            return known
    raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(names)}")


def switch(value: object, name: str) -> bool:
    """True or False, NumPy's too; a word such as "no", which counts as true in Python, is neither.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise ValueError(f"{name} is {value!r}; it must be True or False")
