"""What labels mean, however they are spelled."""

from __future__ import annotations

from typing import Any

import pytest

from datamodules.building.labels import class_names, folder_classes, mixed_remark, read_cls, read_json, read_label


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
        (" cat ", "cat"),
        ("1.5 mm", "1.5 mm"),
        ("1st", "1st"),
        ("nan", "nan"),
        ("true", "true"),
        ("", None),
        (None, None),
        (-1, None),
        ("-1.0", None),
    ],
)
def test_understood(value: Any, label: str | None) -> None:
    assert read_label(value) == (label, None)


@pytest.mark.parametrize(
    "value",
    [-2, 1.5, float("nan"), 1e30, [0, 1], {"a": 1}, "0x1", "1e3", "1_000", "1.5", "٣", "٠١"],
)
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
    assert read_cls(b"9" * 5000)[1] is not None  # more digits than Python reads as a number
    assert read_json(b'{"label": true}') == (None, "label true is neither a number from 0 nor a name: none")


def test_every_label_that_is_read_has_its_class() -> None:
    labels = {read_label(value)[0] for value in ("007", 2, 4.0)} - {None}
    assert labels <= set(class_names({label for label in labels if label}))
    assert folder_classes({"2", "10"}) == ("2", "10")
    assert folder_classes({"02", "1"}) == ("1", "02")


def test_folders_that_are_decimals_are_sorted_as_numbers() -> None:
    assert folder_classes({"10", "1.5", "2", "1", "-0.5"}) == ("-0.5", "1", "1.5", "2", "10")
    assert folder_classes({"10", "2", "1e3"}) == ("10", "1e3", "2")  # no plain number: as text


def test_numbers_among_names_are_said() -> None:
    assert mixed_remark({"0", "10", "2"}) == mixed_remark({"cat", "dog"}) == mixed_remark(set()) == []
    (line,) = mixed_remark({"0", "10", "cat"})
    assert "2 numbers (such as 0) and 1 names (such as cat)" in line
