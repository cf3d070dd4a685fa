"""Kernel Inception Distance (Bińkowski et al. 2018): squared maximum mean discrepancy with a cubic kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_distance(
    features1: Tensor, features2: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased estimate over random subsets.

    Args:
        features1: float32 [n, D].
        features2: float32 [m, D].
        subsets: number of subsets.
        subset_size: samples drawn from each side for a subset, without replacement; at most half of the smaller side,
            since a subset that holds nearly everything has no spread.
        seed: fixes the subsets.

    Raises:
        ValueError: fewer than 4 samples on a side.
    """
    smaller = min(len(features1), len(features2))
    if smaller < 4:
        raise ValueError(f"KID needs at least 4 samples on each side; there are {smaller}")
    size = fitting_subset(smaller, subset_size)
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.stack(
        [squared_mmd(_subset(features1, size, generator), _subset(features2, size, generator)) for _ in range(subsets)]
    )
    return estimates.mean().item(), estimates.std(correction=0).item()


def fitting_subset(smaller: int, subset_size: int) -> int:
    """Number of samples of a subset when the smaller of the two sets has ``smaller`` samples."""
    return min(subset_size, smaller // 2)


def _subset(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)[:size].to(features.device)]


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of the squared MMD between ``x`` and ``y``, both [n, D], under k(a, b) = (a.b / D + 1)^3.

    Returns a float64 scalar, which may be negative.
    """
    n = len(x)
    return (_off_diagonal(x) + _off_diagonal(y)) / (n * (n - 1)) - 2 * _kernel(x, y).mean(dtype=torch.float64)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal(x: Tensor) -> Tensor:
    """Sum of the kernel over pairs of different samples."""
    kernel = _kernel(x, x)
    return kernel.sum(dtype=torch.float64) - kernel.trace().double()
