"""metrics.csv grows by whole rows, and tells of one training however often it was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.runs.metrics import Row, add_rows, cut_rows, read_rows

ROWS = [Row(1000, 1.5, "loss/a", 0.25), Row(2000, 2.5, "loss/a", 0.1), Row(2000, 2.5, 'odd, "name" é', 1e-300)]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "run" / "metrics.csv"
    assert read_rows(file) == []
    add_rows(file, ROWS[:1])
    add_rows(file, ROWS[1:])
    assert read_rows(file) == ROWS
    assert file.read_bytes().startswith(b"images_seen,seconds,name,value\r\n1000,1.500,loss/a,0.25\r\n")


@pytest.mark.parametrize("torn", ["2000,17", "2000,1.5,loss", "\0\0", "2", '2000,1,"open', "x,1,a,1\r\n"])
def test_half_a_row_takes_no_other_one_with_it(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "metrics.csv"
    add_rows(file, ROWS[:1])
    with file.open("a", newline="") as stream:
        stream.write(torn)
    assert read_rows(file) == ROWS[:1]
    add_rows(file, ROWS[1:])
    assert read_rows(file) == ROWS


def test_going_back_keeps_what_had_been_logged_by_then(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    assert cut_rows(file, 2000, 1) == 0
    assert not file.exists()
    add_rows(file, [*ROWS, Row(3000, 3.5, "loss/a", 0.0)])
    with file.open("a") as stream:
        stream.write("3000,4")
    assert cut_rows(file, 2000, None) == 2
    assert read_rows(file) == ROWS
    assert cut_rows(file, 2000, 1) == 1
    assert read_rows(file) == ROWS[:2]
    whole = file.read_bytes()
    assert cut_rows(file, 2500, None) == 0
    assert file.read_bytes() == whole
    cut_rows(file, 0, 0)
    assert read_rows(file) == []
    add_rows(file, ROWS)
    assert read_rows(file) == ROWS
