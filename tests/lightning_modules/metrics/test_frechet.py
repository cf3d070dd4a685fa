from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_modules.metrics.frechet import frechet_distance, frechet_distance_to_features
from tests.lightning_modules.metrics.metrics_reference import PooledFeatures, scipy_frechet


def features(count: int, dim: int, seed: int) -> Tensor:
    """Correlated samples with a mean, like a network's."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator) / dim**0.5
    return torch.randn(count, dim, generator=generator) @ mixing + torch.rand(dim, generator=generator)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.double().mean(0), x.double().T.cov()


@pytest.mark.parametrize(
    ("count1", "count2"), [(500, 400), (40, 400), (400, 40), (40, 30)], ids=["full", "low1", "low2", "both"]
)
def test_equals_scipy(count1: int, count2: int) -> None:
    x, y = features(count1, 96, 1), features(count2, 96, 2)
    expected = scipy_frechet(x, y)
    assert frechet_distance(*moments(x), *moments(y)).item() == pytest.approx(expected, rel=1e-4)
    assert frechet_distance_to_features(*moments(x), y).item() == pytest.approx(expected, rel=1e-4)


def test_low_rank_equals_the_nuclear_norm() -> None:
    """With both sets of features, tr (cov1 cov2)^(1/2) is the nuclear norm of X Y^T, which needs no square root."""
    x, y = features(60, 256, 1), features(50, 256, 2)
    centred = [((z.double() - z.double().mean(0)) / (len(z) - 1) ** 0.5).numpy() for z in (x, y)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    means = (x.double().mean(0) - y.double().mean(0)).square().sum().item()
    expected = means + sum((z**2).sum() for z in centred) - 2 * root
    assert frechet_distance(*moments(x), *moments(y)).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance_to_features(*moments(x), y).item() == pytest.approx(expected, rel=1e-6)


def test_commuting_covariances_have_a_closed_form() -> None:
    a, b = torch.rand(64, dtype=torch.float64), torch.rand(64, dtype=torch.float64)
    mean1, mean2 = torch.randn(64), torch.randn(64)
    expected = (mean1 - mean2).double().square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    torch.testing.assert_close(frechet_distance(mean1, a.diag(), mean2, b.diag()), expected)


@pytest.mark.parametrize("count", [20, 400])
def test_equal_sets_are_at_distance_zero(count: int) -> None:
    x = features(count, 96, 3)
    assert frechet_distance(*moments(x), *moments(x)).item() == pytest.approx(0, abs=1e-6)
    assert frechet_distance_to_features(*moments(x), x).item() == pytest.approx(0, abs=1e-6)


def test_no_variance_at_all() -> None:
    zero = torch.zeros(8, 8)
    assert frechet_distance(torch.zeros(8), zero, torch.ones(8), zero).item() == 8


def test_equals_torchmetrics() -> None:
    x, y = features(400, 96, 4), features(500, 96, 5)
    reference = FrechetInceptionDistance(feature=PooledFeatures(lambda images: (images,), 96)).set_dtype(torch.float64)
    reference.update(x.double(), real=True)
    reference.update(y.double(), real=False)
    assert frechet_distance(*moments(x), *moments(y)).item() == pytest.approx(reference.compute().item(), rel=1e-6)
