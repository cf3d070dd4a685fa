"""Statistics of real pictures in a cache that is damaged, or that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from launch.evaluation.references import _keep, _kept
from lightning_modules.metrics.statistics import FeatureStatistics


@pytest.fixture
def statistics() -> FeatureStatistics:
    return FeatureStatistics(9, torch.zeros(3).double(), torch.eye(3).double(), None, "tiny")


def test_what_was_kept_is_taken(statistics: FeatureStatistics, tmp_path: Path) -> None:
    file = tmp_path / "statistics" / "one.safetensors"
    assert _kept(file) is None
    _keep(statistics, file)
    kept = _kept(file)
    assert kept is not None
    assert torch.equal(kept.cov, statistics.cov)


def test_a_damaged_file_is_said_and_computed_anew(
    statistics: FeatureStatistics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.safetensors"
    _keep(statistics, file)
    for content in (file.read_bytes()[:40], b""):
        file.write_bytes(content)
        assert _kept(file) is None
        said = capsys.readouterr().err
        assert str(file) in said
        assert "computed anew" in said


def test_a_cache_that_cannot_be_written_ends_nothing(
    statistics: FeatureStatistics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "statistics").write_text("a file where a folder belongs")
    _keep(statistics, tmp_path / "statistics" / "one.safetensors")
    assert "GESSO_CACHE" in capsys.readouterr().err
