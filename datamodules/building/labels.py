"""Parses labels from ``.cls``, ``.json``, StyleGAN's list or folders' names."""

from __future__ import annotations

import json
import re
from typing import Any

from gesso.common.text import decode_text

# Python raises an error for numbers of thousands of digits; a class has few.
_INTEGER = re.compile(r"([+-]?)0*(\d{1,18})(?:\.0*)?", re.ASCII)
_MOST_CLASSES = 10_000_000

#: A label (None: there is none), and a note on what is not understood (None: nothing).
Reading = tuple[str | None, str | None]


def read_label(value: Any) -> Reading:
    """Parses a label of JSON or text. Whole numbers, however written, count as classes from 0; -1 means none.

    >>> read_label("007"), read_label(1.0), read_label(-1), read_label("cat")
    (('7', None), ('1', None), (None, None), ('cat', None))
    """
    if value is None:
        return None, None
    if isinstance(value, bool):
        return str(int(value)), None
    if isinstance(value, int | float | str):
        text = str(value).strip()
        number = _INTEGER.fullmatch(text)
        if number is None:
            return (text or None, None) if isinstance(value, str) else _misread(value)
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


def _misread(value: Any) -> Reading:
    shown = repr(value)
    return None, f"label {shown if len(shown) < 40 else shown[:37] + '...'} is neither a number from 0 nor a name: none"


def class_names(found: set[str]) -> tuple[str, ...]:
    """Names of the classes from all labels ``found``: numbers count from 0, other labels are sorted.

    Raises:
        ValueError: a number too large to be a class.
    """
    if not all(label.isascii() and label.isdecimal() for label in found):
        return tuple(sorted(found))
    highest = max(map(int, found), default=-1)
    if highest > _MOST_CLASSES:
        raise ValueError(f"class number {highest}: that is no class; are the .cls members something else?")
    return tuple(str(number) for number in range(highest + 1))


def folder_classes(found: set[str]) -> tuple[str, ...]:
    """Names of the classes from folders' names: sorted, as numbers if all are (2 before 10).

    >>> folder_classes({"10", "2", "1"}), folder_classes({"b", "10", "2"})
    (('1', '2', '10'), ('10', '2', 'b'))
    """
    if all(re.fullmatch(r"\d{1,18}", name, re.ASCII) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))
