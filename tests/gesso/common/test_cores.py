"""The cores of a container are those of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from gesso.common.cores import cpu_quota, granted_cores


def groups(root: Path, **files: str) -> Path:
    """Files of control groups, by their paths with ``__`` for slashes and ``_`` for dots."""
    for name, content in files.items():
        file = root / name.replace("__", "/").replace("max", "cpu.max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"max": "max 100000\n"}, math.inf),
        ({"max": "150000 100000\n"}, 1.5),
        ({"jobs__one__max": "max 100000\n", "jobs__max": "400000 100000\n"}, 4.0),
        ({"jobs__one__max": "200000 100000\n", "jobs__max": "400000 100000\n"}, 2.0),
        ({"jobs__other__max": "100000 100000\n"}, math.inf),
        ({"max": "nonsense"}, math.inf),
    ],
)
def test_the_least_quota_on_the_way_up_counts(files: dict[str, str], cores: float, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/one\n")
    assert cpu_quota(groups(tmp_path / "groups", **files), own) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3.0), ("-1", math.inf)])
def test_version_1(quota: str, cores: float, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(tmp_path, tmp_path / "nothing") == cores


@pytest.mark.parametrize(("ranks", "cores"), [(1, 1), (3, 1), (4, 1)])
def test_ranks_share_the_quota(ranks: int, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesso.common.cores.cpu_quota", lambda: 1.5)
    assert granted_cores(ranks) == cores


def test_ranks_share_no_more_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    assert granted_cores(4) == 64  # without a quota; each rank has its own cores, or Lightning divides them
    monkeypatch.setattr("gesso.common.cores.cpu_quota", lambda: 34.0)
    assert [granted_cores(ranks) for ranks in (1, 4, 100)] == [34, 8, 1]


def test_there_is_always_one_and_never_more_than_the_process_may_run_on() -> None:
    assert 1 <= granted_cores() <= len(os.sched_getaffinity(0))
