"""Inputs to compare an export with its run: held-out pictures as they are, made-up ones, and sizes that change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules.shards import ShardData
from launch.export.samples import Samples
from lightning_modules.core.deployment import Layout
from tests.launch.export.families import tiny

DIGITS = Path(__file__).parents[2] / "fixtures" / "before_the_house" / "digits"


@pytest.mark.process
def test_held_out_pictures_are_those_of_the_set() -> None:
    data = ShardData(str(DIGITS), 4, size=32, channels=1)
    split = data.held_out_split
    images = torch.cat(list(data.reference_batches(split, rank=0, world_size=1, batch_size=8, limit=None)))
    deployable = tiny("VAE").deployable("reconstruction", Layout())
    found = [one["source"] for one in Samples(deployable, data, dynamic=False)(2, seed=0)]
    # uint8 and back is exact.
    assert torch.equal(torch.cat(found), images[:2].float() / 127.5 - 1)
    # Those behind them, for calibration; after the last one comes the first again.
    there = data.manifest.split(split).samples
    (other,) = Samples(deployable, data, dynamic=False)(1, seed=0, first=1)
    assert torch.equal(other["source"], found[1])
    (again,) = Samples(deployable, data, dynamic=False)(1, seed=0, first=there)
    assert torch.equal(again["source"], found[0])


def test_free_sizes_are_not_always_the_traced_ones() -> None:
    deployable = tiny("MUNIT").deployable("a-to-b", Layout(dynamic=True))
    shapes = [tuple(one["source"].shape) for one in Samples(deployable, None, dynamic=True)(12, seed=0)]
    assert len({shape[0] for shape in shapes}) > 1
    assert len({shape[2:] for shape in shapes}) > 1
    assert all(side % 4 == 0 for shape in shapes for side in shape[2:])
    assert sum(shape[0] for shape in shapes) == 12


def test_a_fixed_size_is_kept() -> None:
    deployable = tiny("CycleGAN").deployable("a-to-b", Layout(20, 28))
    for one in Samples(deployable, None, dynamic=False)(3, seed=0):
        assert one["source"].shape == (1, 3, 20, 28)
        assert one["source"].abs().max() <= 1
