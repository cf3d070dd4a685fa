"""The list of runs: what is found, under which key, and what is said of each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from launch.report.record import read_record
from launch.runs.folder import RunFolder
from launch.ui.comparison import names_of
from launch.ui.runs import find_runs, row_of, thumbnail, version_of
from tests.launch.report.finished import finished_run, write_metrics


def begun(path: Path, at: int, **info: object) -> RunFolder:
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(info))
    os.utime(path / "run.json", (at, at))
    return RunFolder(path)


def test_runs_are_found_the_newest_first(tmp_path: Path) -> None:
    begun(tmp_path / "runs" / "old", 1000)
    begun(tmp_path / "runs" / "new", 3000)
    begun(tmp_path / "runs" / "sweep" / "trials" / "a", 2000)
    # Not what is inside of a run, hidden, too deep, or reached by a link.
    begun(tmp_path / "runs" / "new" / "checkpoints" / "copy", 9000)
    begun(tmp_path / "runs" / ".trash" / "b", 9000)
    begun(tmp_path / "runs" / "1" / "2" / "3" / "deep", 9000)
    begun(tmp_path / "elsewhere" / "c", 9000)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(find_runs([tmp_path / "runs"])) == ["new", "sweep/trials/a", "old"]
    assert next(iter(find_runs([tmp_path / "runs", tmp_path / "elsewhere"]))) == "1:c"
    assert list(find_runs([tmp_path / "runs" / "old"])) == ["old"]
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])


def test_a_row_says_how_far_a_run_is(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "digits")
    row = row_of("digits", RunFolder(path))
    assert (row.name, row.state, row.family, row.kimg) == ("digits", "finished", "DCGAN", 200.0)
    assert row.score == "FID 41.2, best 39.5"
    # What was logged is ahead of what the last checkpoint says.
    run = begun(tmp_path / "young", 1, name="young", state="running", kimg=5.0, total_kimg=10)
    write_metrics(run.path, [(7000, "images_per_second", 123.0)])
    row = row_of("young", run)
    assert (row.kimg, row.total_kimg, row.images_per_second, row.score) == (7.0, 10.0, 123.0, "")


def test_a_damaged_run_is_listed(tmp_path: Path) -> None:
    run = begun(tmp_path / "broken", 1)
    (run.path / "run.json").write_text("{")
    assert row_of("broken", run).state == "damaged"


def test_a_version_changes_with_what_is_shown(tmp_path: Path) -> None:
    run = RunFolder(finished_run(tmp_path / "digits"))
    before = version_of(run)
    assert version_of(run) == before
    with run.metrics.open("a") as stream:
        stream.write("200000,1795244401,fid/mobilenet_v2,40.0\n")
    os.utime(run.metrics, (1, 1))
    assert version_of(run) != before


def test_a_thumbnail_is_small_and_of_the_last_samples(tmp_path: Path) -> None:
    import io

    run = RunFolder(finished_run(tmp_path / "digits"))
    data = thumbnail(run)
    assert data is not None
    picture = Image.open(io.BytesIO(data))
    assert max(picture.size) <= 144
    assert picture.getpixel((0, 0)) == (200, 200, 200)
    (run.samples / "000000200000.png").write_bytes(b"no picture")
    assert thumbnail(run) is None
    assert thumbnail(begun(tmp_path / "young", 1)) is None


def test_trials_of_two_sweeps_are_told_apart(tmp_path: Path) -> None:
    places = ("a/trials/001", "b/trials/001", "other", "same/001")
    records = [read_record(begun(tmp_path / place, 1, name=place.split("/")[-1]).path) for place in places]
    assert names_of(records[:3]) == ["001 (a/trials/001)", "001 (b/trials/001)", "other"]
    assert names_of([records[0], records[3]]) == ["001 (trials/001)", "001 (same/001)"]
    assert names_of(records[2:]) == ["other", "001"]
