from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.metrics.statistics import FeatureStatistics, StatisticsAccumulator


def accumulate(features: torch.Tensor, order: torch.Tensor, *, cap: int, batches: int) -> FeatureStatistics:
    accumulator = StatisticsAccumulator(features.shape[1], "mobilenet_v2", num_samples=len(features), cap=cap)
    for index in order.chunk(batches):
        accumulator.update(features[index], index)
    return accumulator.compute()


def test_moments_equal_numpy_also_far_from_the_origin() -> None:
    features = torch.randn(300, 20) + 50
    statistics = accumulate(features, torch.randperm(300), cap=0, batches=9)
    wide = features.double().numpy()
    assert statistics.num_samples == 300
    assert statistics.features is None
    np.testing.assert_allclose(statistics.mean.numpy(), wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.cov.numpy(), np.cov(wide, rowvar=False), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("count", "cap"), [(10, 4), (100, 30), (7, 7), (5, 50), (1000, 999)])
def test_kept_features_are_evenly_spaced_in_any_order(count: int, cap: int) -> None:
    features = torch.arange(count * 2.0).view(count, 2)
    statistics = accumulate(features, torch.randperm(count), cap=cap, batches=3)
    size = min(cap, count)
    expected = [-(-slot * count // size) for slot in range(size)]
    assert statistics.features is not None
    assert statistics.features[:, 0].tolist() == [2.0 * i for i in expected]


def test_fewer_samples_than_announced() -> None:
    accumulator = StatisticsAccumulator(3, "mobilenet_v2", num_samples=100, cap=10)
    features = torch.randn(25, 3)
    accumulator.update(features, torch.arange(25))
    statistics = accumulator.compute()
    assert statistics.num_samples == 25
    assert statistics.features is not None
    assert torch.equal(statistics.features, features[[0, 10, 20]])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_repeated_or_missing_samples_are_refused() -> None:
    accumulator = StatisticsAccumulator(3, "mobilenet_v2", num_samples=8, cap=8)
    with pytest.raises(ValueError, match="at least 2"):
        accumulator.compute()
    for _ in range(2):
        accumulator.update(torch.randn(4, 3), torch.arange(4))
    with pytest.raises(ValueError, match="distinct"):
        accumulator.compute()


def test_file_round_trip_and_damage(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "reference.safetensors"
    features = torch.randn(30, 5)
    statistics = accumulate(features, torch.arange(30), cap=10, batches=2)._replace(origin={"split": "train"})
    statistics.save(file)
    loaded = FeatureStatistics.load(file)
    assert (loaded.num_samples, loaded.extractor, loaded.origin) == (30, "mobilenet_v2", {"split": "train"})
    for name in ("mean", "cov", "features"):
        assert torch.equal(getattr(loaded, name), getattr(statistics, name))
    assert [path.name for path in file.parent.iterdir()] == [file.name]

    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"reference\.safetensors: .*delete it"):
        FeatureStatistics.load(file)
    with pytest.raises(FileNotFoundError, match="no feature statistics"):
        FeatureStatistics.load(tmp_path / "none.safetensors")
