"""Parses labels from ``.cls``, ``.json``, StyleGAN's list or folders' names."""

from __future__ import annotations

import contextlib
import json
import re
from fractions import Fraction
from typing import Any

from gesso.common.text import decode_text

# Python raises an error for numbers of thousands of digits; a class has few.
_INTEGER = re.compile(r"([+-]?)0*(\d{1,18})(?:\.0*)?", re.ASCII)
# Of 0x1, 1e3, 1_000 or Arabic digits; not of "nan", "1st" or "1.5 mm".
_BEGINS_LIKE_A_NUMBER = re.compile(r"[+-]?\.?\d")
# A folder's name that is a number: Python's Fraction takes more, and hangs on exponents.
_DECIMAL = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)
_MOST_CLASSES = 10_000_000

#: A label (None: there is none), and a note on what is not understood (None: nothing).
Reading = tuple[str | None, str | None]


def read_label(value: Any) -> Reading:
    """Parses a label of JSON or text. Whole numbers (also 007, 1.0) count as classes from 0; -1 means none.

    Other notations of numbers (``0x1``, ``1.5``, ``1e3``, ``١``) are neither numbers of classes nor names.

    >>> read_label("007"), read_label(1.0), read_label(-1), read_label("cat")
    (('7', None), ('1', None), (None, None), ('cat', None))
    """
    if value is None:
        return None, None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        text = str(value).strip()
        number = _INTEGER.fullmatch(text)
        if number is None:
            return (text or None, None) if isinstance(value, str) and not _is_number(text) else _misread(value)
        if number[1] != "-" or int(number[2]) == 0:
            return str(int(number[2])), None
        return (None, None) if int(number[2]) == 1 else _misread(value)
    return _misread(value)


def read_cls(data: bytes) -> Reading:
    """The label in a ``.cls`` member."""
    text = decode_text(data)
    return (None, "its .cls is no text: no label") if text is None else read_label(text)


def read_json(data: bytes) -> Reading:
    """The label in a ``.json`` member: its "label" or "class"."""
    text = decode_text(data)
    try:
        fields = json.loads(text or "")
    except (ValueError, RecursionError):
        return None, "its .json cannot be parsed: no label from it"
    if not isinstance(fields, dict):
        return None, None
    label = fields.get("label")
    return read_label(fields.get("class") if label is None else label)


def _counts(label: str) -> bool:
    return label.isascii() and label.isdecimal()


def _is_number(text: str) -> bool:
    """Whether a text is a number in some notation."""
    if _BEGINS_LIKE_A_NUMBER.match(text):
        for read in (float, lambda text: int(text, 0)):
            with contextlib.suppress(ValueError):
                read(text)
                return True
    return False


def _misread(value: Any) -> Reading:
    shown = json.dumps(value) if isinstance(value, bool) else repr(value)
    return None, f"label {shown if len(shown) < 40 else shown[:37] + '...'} is neither a number from 0 nor a name: none"


def class_names(found: set[str]) -> tuple[str, ...]:
    """Names of the classes from all labels ``found``: numbers count from 0, other labels are sorted.

    Raises:
        ValueError: a number too large to be a class.
    """
    if not all(map(_counts, found)):
        return tuple(sorted(found))
    highest = max(map(int, found), default=-1)
    if highest > _MOST_CLASSES:
        raise ValueError(f"class number {highest}: that is no class; are the .cls members something else?")
    return tuple(str(number) for number in range(highest + 1))


def folder_classes(found: set[str]) -> tuple[str, ...]:
    """Names of the classes from folders' names: sorted, as numbers if all are (2 before 10).

    >>> folder_classes({"10", "2", "1.5"}), folder_classes({"b", "10", "2"})
    (('1.5', '2', '10'), ('10', '2', 'b'))
    """
    if all(_DECIMAL.fullmatch(name) for name in found):
        return tuple(sorted(found, key=lambda name: (Fraction(name), name)))
    return tuple(sorted(found))


def mixed_remark(found: set[str]) -> list[str]:
    """A line for the report where some labels are numbers and others are names: then no number counts as one."""
    numbers = set(filter(_counts, found))
    names = found - numbers
    if not numbers or not names:
        return []
    return [
        f"labels mix {len(numbers):,} numbers (such as {min(numbers)}) and {len(names):,} names (such as "
        f"{min(names)}): all are taken for names and sorted as text"
    ]
