"""Haar pooling against the filters of its definition, and its inverse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.networks.haar import haar_pool, haar_unpool, haar_unpool_part


@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 10), (8, 9), (5, 5), (1, 1), (1, 6)])
def test_unpooling_undoes_pooling(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    parts = haar_pool(x)
    assert all(part.shape == (2, 3, -(-height // 2), -(-width // 2)) for part in parts)
    torch.testing.assert_close(haar_unpool(parts, x.shape[2:]), x, rtol=0, atol=1e-6)
    alone = [haar_unpool_part(part, number, x.shape[2:]) for number, part in enumerate(parts)]
    torch.testing.assert_close(sum(alone), x, rtol=0, atol=1e-6)


def test_pooling_is_the_outer_products_of_the_two_filters() -> None:
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    low, high = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([-1.0, 1.0]) / 2**0.5
    for part, (column, row) in zip(haar_pool(x), [(low, low), (low, high), (high, low), (high, high)], strict=True):
        torch.testing.assert_close(part, F.conv2d(x, torch.outer(column, row)[None, None], stride=2))
    # Orthogonal: the energy stays.
    torch.testing.assert_close(sum(part.square().sum() for part in haar_pool(x)), x.square().sum())
