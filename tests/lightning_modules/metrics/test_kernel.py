from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_modules.metrics.kernel import kernel_distance, squared_mmd
from tests.lightning_modules.metrics.metrics_reference import PooledFeatures


def test_mmd_equals_its_definition() -> None:
    x, y = torch.randn(12, 7), torch.randn(12, 7) + 0.3

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 7 + 1) ** 3

    xs, ys = x.double().numpy(), y.double().numpy()
    n = len(xs)
    within = sum(kernel(z[i], z[j]) for z in (xs, ys) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    across = sum(kernel(a, b) for a in xs for b in ys) / n**2
    assert squared_mmd(x, y).item() == pytest.approx(within - 2 * across, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_agrees_with_torchmetrics_within_its_spread() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(600, 64), torch.rand(600, 64) * 1.1
    reference = KernelInceptionDistance(feature=PooledFeatures(lambda images: (images,), 64), subset_size=200)
    reference.update(x, real=True)
    reference.update(y, real=False)
    expected, spread = (value.item() for value in reference.compute())
    mean, std = kernel_distance(x, y, subset_size=200)
    assert mean == pytest.approx(expected, abs=spread)
    assert std == pytest.approx(spread, rel=0.5)
    assert mean == pytest.approx(squared_mmd(x, y).item(), abs=std)


def test_seed_fixes_the_subsets() -> None:
    x, y = torch.rand(50, 8), torch.rand(40, 8)
    assert kernel_distance(x, y, seed=1) == kernel_distance(x, y, seed=1)
    assert kernel_distance(x, y, seed=1) != kernel_distance(x, y, seed=2)


def test_same_distribution_is_zero_on_average() -> None:
    torch.manual_seed(0)
    mean, std = kernel_distance(torch.rand(2000, 16), torch.rand(2000, 16), subset_size=100)
    assert abs(mean) < std


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        kernel_distance(torch.rand(3, 8), torch.rand(50, 8))
