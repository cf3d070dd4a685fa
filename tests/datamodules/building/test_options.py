"""What is wrong with a build is one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from gesso.cli.main import main
from tests.datamodules.building.made import photographs


@pytest.mark.process
def test_one_line_for_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.jpg").write_text("no image")
    full = photographs(tmp_path / "full", 4)
    for arguments, expected in [
        ([str(tmp_path / "nowhere"), str(out)], "nowhere: no such folder"),
        ([str(empty), str(out)], "it is empty"),
        ([str(bad), str(out)], "1 undecodable: x.jpg"),
        ([str(full), str(full)], "both source and target"),
        ([str(full), str(full / "a" / "0000.png")], "is a file"),
        ([str(full), str(out), "--size", "0"], "size 0"),
        ([str(full), str(out), "--splits", "80-20"], "80/10/10"),
        ([str(full), str(out), "--splits", "official"], "no official splits"),
        ([str(full), str(out), "--quality", "101"], "quality 101"),
        ([str(full), str(out), "--workers", "0"], "--workers 0"),
        ([str(full), str(out), "--restart-markers", "--format", "png"], "add --format jpg"),
    ]:
        assert main(["shards", "build", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1
        assert not out.exists()
