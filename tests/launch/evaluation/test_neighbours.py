"""Nearest training pictures, against a search over all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.neighbours import nearest_pictures


@pytest.mark.network
def test_the_nearest_are_those_of_a_search_over_all(shards: Path) -> None:
    data = ShardData(str(shards))
    everything = to_float(
        torch.cat(list(data.reference_batches("train", rank=0, world_size=1, batch_size=64, limit=None)))
    )
    known = everything[[5, 700]]
    samples = torch.cat([known, torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1])
    sheet = nearest_pictures(samples, data, nearest=3)
    assert sheet.shape == (12, 1, 32, 32)
    assert torch.equal(sheet[:3], samples)
    # A picture of the set is nearest to itself.
    assert torch.equal(sheet[3:5], known)
    squares = ((samples[:, None] - everything[None]) ** 2).flatten(2).sum(2)
    for rank in range(3):
        wanted = everything[squares.argsort(dim=1)[:, rank]]
        assert torch.equal(sheet[3 * (rank + 1) : 3 * (rank + 2)], wanted)


@pytest.mark.network
def test_large_pictures_are_compared_shrunken(shards: Path) -> None:
    data = ShardData(str(shards), size=64)
    first = to_float(next(data.reference_batches("train", rank=0, world_size=1, batch_size=1, limit=100)))
    noisy = first + 0.3 * torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    sheet = nearest_pictures(noisy, data, nearest=1, limit=100)
    assert torch.equal(sheet[1:], first)
    assert F.mse_loss(sheet[:1], first) > 0
