"""Parts of `python -m tests.gpu`: one that fails, dies or hangs is a row of the table, and the others go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.gpu import rows as table
from tests.gpu.catalogue import PARTS
from tests.gpu.marked import marked_files
from tests.gpu.parts import ROOT, Part, Place, attempt, run_all
from tests.gpu.rows import Row


def nothing(place: Place) -> Iterator[Row]:
    yield from ()


def test_an_error_is_the_last_row_of_its_part() -> None:
    def run(place: Place) -> Iterator[Row]:
        yield Row("broken", "first", value=1.0)
        raise RuntimeError("rank 0 said:\n  CUDA error: an illegal memory access\n")

    first, last = attempt(Part("broken", 1, run), Place("cpu", 1, Path()))
    assert (first.state, first.value) == ("ok", 1.0)
    assert (last.state, last.detail) == ("failed", "CUDA error: an illegal memory access")


@pytest.mark.process
def test_a_part_that_dies_or_hangs_leaves_its_rows_and_the_others_run(tmp_path: Path) -> None:
    row = json.dumps(asdict(Row("any", "seen", value=2.0)))
    write = f"open('{tmp_path}/NAME.jsonl', 'w').write({row + chr(10)!r})"
    endings = {
        "dies": "import os, sys; sys.stderr.write('no such driver\\n'); sys.stderr.flush(); os._exit(3)",
        "hangs": "import time; time.sleep(60)",
        "works": "pass",
        "needs": "pass",
        "late": "pass",
    }
    parts = [Part(name, {"hangs": 1.0}.get(name, 30), nothing, name == "needs") for name in endings]
    heard: dict[str, list[Row]] = {}

    def command(part: Part) -> list[str]:
        return [sys.executable, "-c", f"{write.replace('NAME', part.name)}\n{endings[part.name]}"]

    def told(part: Part, found: list[Row], seconds: float) -> None:
        heard[part.name] = found

    run_all(parts[:4], Place("cpu", 1, tmp_path), 100, told, command)
    run_all(parts[4:], Place("cpu", 1, tmp_path), 5, told, command)
    assert list(heard) == list(endings)
    assert [(found.state, found.detail) for found in heard["dies"]] == [
        ("ok", ""),
        ("failed", "its process ended with 3: no such driver"),
    ]
    assert [(found.state, found.detail) for found in heard["hangs"]] == [
        ("ok", ""),
        ("failed", "it was ended after 2 s"),
    ]
    assert [found.state for found in heard["works"]] == ["ok"]
    assert [(found.state, found.detail) for found in heard["needs"]] == [("skipped", "needs CUDA")]
    assert [(found.state, found.detail) for found in heard["late"]] == [("skipped", "no time was left")]


def test_every_part_has_its_function_and_all_fit_into_the_time() -> None:
    for part in PARTS:
        code = part.run.__closure__
        assert code is not None
        function, module = (cell.cell_contents for cell in code)
        # Not imported: that takes seconds.
        assert f"\ndef {function}(place: Place)" in (ROOT / "tests" / "gpu" / f"{module}.py").read_text()
    assert len({part.name for part in PARTS}) == len(PARTS)
    # Not all of them will need theirs.
    assert sum(part.budget for part in PARTS[:5]) <= 480


def test_a_line_that_was_being_written_is_no_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    table.append(file, Row("part", "whole", "bf16-mixed", value=12.34, unit="ms"))
    with file.open("a") as stream:
        stream.write('{"part": "part", "na')
    (row,) = table.read(file)
    assert row.figure() == "bf16-mixed 12.3 ms"
    assert table.read(tmp_path / "none.jsonl") == []


def test_the_table_shows_variants_side_by_side_and_why_one_failed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("train", "vae, zero3", "32-true", value=2e-6, unit="apart"),
        Row("train", "vae, zero3", "bf16-mixed", "failed", detail="RuntimeError: no kernel [1, 2]"),
        Row("train", "vae, zero3", "16-mixed", "skipped", detail="too much"),
        Row("train", "vae, zero3", "bf16-true", "skipped", detail="too much"),
    ]
    table.show(rows, "a device")
    shown = capsys.readouterr().out
    assert "32-true 2.0e-06 apart, bf16-mixed FAILED" in shown
    assert "RuntimeError: no kernel [1, 2]" in shown
    assert "skipped: 16-mixed, bf16-true" in shown
    assert "1 ok, 1 failed, 2 skipped" in shown


def test_tests_that_are_marked_are_found() -> None:
    found = {file.name for file in marked_files(ROOT / "tests")}
    assert {"test_penalties.py", "test_noise.py"} <= found
