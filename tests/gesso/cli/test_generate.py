"""`gesso generate`: what it refuses before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gesso.cli.main import main
from launch.inference.pictures import save_picture


def test_pictures_of_before_do_not_stay_among_the_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save_picture(np.zeros((4, 4), np.uint8), tmp_path / f"{number:06d}.png")
    (tmp_path / "notes.txt").touch()
    assert main(["generate", "/nowhere", "--num", "1", "--folder", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds 2 numbered pictures of before that 1 new ones would not replace, such as 000001.png" in line
    # As many or more take the place of all.
    assert main(["generate", "/nowhere", "--num", "3", "--folder", str(tmp_path)]) == 2
    assert "/nowhere: no such run or checkpoint" in capsys.readouterr().err


def test_a_sampler_that_filling_in_would_not_heed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "/nowhere", "--from", "a.png", "--mask", "b.png", "--sampler", "heun"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--mask fills in by ancestral sampling alone: leave --sampler out" in line


def test_a_class_that_an_interpolation_would_not_heed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "/nowhere", "--interpolate", "path.png", "--label", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--label and --interpolate: choose one" in line
