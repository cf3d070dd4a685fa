"""Statistics of real pictures in a cache that is damaged, or that cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.shards import ShardData
from launch.evaluation.references import _keep, _kept, reference
from lightning_modules.metrics.statistics import FeatureStatistics
from tests.datamodules.shardset import Sample, numbered, write_shards


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


@pytest.mark.parametrize("change", [-10_240, 10_240])
def test_what_was_kept_of_other_shards_is_not_taken(
    change: int, statistics: FeatureStatistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar that was replaced under its manifest, as an interrupted copy of a rebuilt set leaves it."""
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path / "cache"))
    manifest = write_shards(tmp_path / "set", train=[[Sample(numbered(n)) for n in range(9)] for _ in range(2)])
    data = ShardData(str(tmp_path / "set"), workers=0)
    network: Any = nn.Linear(1, 1)
    network.name = "tiny"
    name = f"{manifest.fingerprints['train'][:20]}-train-18-{data.size}px-3ch-{network.name}.safetensors"
    _keep(statistics, tmp_path / "cache" / "statistics" / name)
    assert torch.equal(reference(data, "train", network).cov, statistics.cov)
    tar = tmp_path / "set" / "train-000001.tar"
    size = tar.stat().st_size
    with tar.open("r+b") as file:
        file.truncate(size + change)
    said = rf"train-000001\.tar: .*{size + change}.* says {size}; .*shards verify"
    with pytest.raises(ValueError, match=said) as caught:
        reference(data, "train", network)
    assert "\n" not in str(caught.value)
    tar.unlink()
    with pytest.raises(FileNotFoundError, match="train-000001.tar: this shard is missing"):
        reference(data, "train", network)
