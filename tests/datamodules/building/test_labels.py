"""What labels mean, however they are spelled."""

from __future__ import annotations

from typing import Any

import pytest

from datamodules.building.labels import class_names, folder_classes, read_cls, read_json, read_label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (7, "7"),
        ("007", "7"),
        (1.0, "1"),
        ("1.0", "1"),
        ("+3", "3"),
        (0, "0"),
        ("-0", "0"),
        (True, "1"),
        (" cat ", "cat"),
        ("1.5 mm", "1.5 mm"),
        ("", None),
        (None, None),
        (-1, None),
        ("-1.0", None),
    ],
)
def test_understood(value: Any, label: str | None) -> None:
    assert read_label(value) == (label, None)


@pytest.mark.parametrize("value", [-2, 1.5, float("nan"), 1e30, [0, 1], {"a": 1}])
def test_not_understood_is_said(value: Any) -> None:
    label, note = read_label(value)
    assert label is None
    assert note is not None
    assert str(value)[:3] in note


def test_members() -> None:
    assert read_cls(b"\xef\xbb\xbf3\r\n") == ("3", None)
    assert read_cls(b"\xff\x00\x81")[1] is not None
    assert read_json(b'{"class": 4, "label": null}') == ("4", None)
    assert read_json(b'{"url": "x"}') == (None, None)
    label, note = read_json(b'{"label": 007}')
    assert label is None
    assert note is not None
    assert ".json" in note
    assert read_cls(b"9" * 5000)[0] is not None  # more digits than Python reads as a number


def test_every_label_that_is_read_has_its_class() -> None:
    labels = {read_label(value)[0] for value in ("007", 2, 4.0)} - {None}
    assert labels <= set(class_names({label for label in labels if label}))
    assert folder_classes({"2", "10"}) == ("2", "10")
    assert folder_classes({"02", "1"}) == ("1", "02")
