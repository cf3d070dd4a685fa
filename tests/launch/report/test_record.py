"""metrics.csv as a report reads it: resumed runs, torn lines."""

from __future__ import annotations

import math
from pathlib import Path

from launch.report.record import read_metrics
from tests.launch.report.finished import write_metrics


def test_what_a_resumed_run_logs_again_replaces_what_it_logged_before(tmp_path: Path) -> None:
    first = [(images, "loss/a/loss", 1.0) for images in range(1000, 7000, 1000)] + [(6000, "fid/x", 90.0)]
    again = [(images, "loss/a/loss", 2.0) for images in range(4000, 6000, 1000)]
    write_metrics(tmp_path, [*first, *again])
    series = read_metrics(tmp_path / "metrics.csv")
    assert series["loss/a/loss"] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]
    assert "fid/x" not in series, "the FID at 6 kimg was of weights that are gone"
    write_metrics(tmp_path, [(1000, "a", 1.0), (2000, "a", 1.0), (2000, "b", 5.0), (2000, "a", 2.0)])
    assert read_metrics(tmp_path / "metrics.csv") == {"a": [(1, 1.0), (2, 2.0)], "b": [(2, 5.0)]}


def test_torn_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    good = "1000,1.5,loss/a/loss,0.25\r\n"
    torn = [
        "2000,1.5,loss/a",
        "2000,1.5,lo3000,1.5,loss/a/loss,9\r\n",
        "x,1,a,1\r\n",
        "\r\n",
        "\0\0\r\n",
        "4000,1,a,nan\r\n",
    ]
    file.write_bytes(("images_seen,seconds,name,value\r\n" + good + "".join(torn[1:]) + torn[0]).encode())
    series = read_metrics(file)
    assert series["loss/a/loss"] == [(1, 0.25)]
    assert list(series) == ["loss/a/loss", "a"]
    assert math.isnan(series["a"][0][1])
