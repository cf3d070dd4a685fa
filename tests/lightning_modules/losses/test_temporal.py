"""Consistency of a video: known motions, results that keep to them and results that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.kinds.stylizing import StyleFamily
from lightning_modules.losses.temporal import (
    Consistency,
    TemporalOptions,
    compound_loss,
    difference_loss,
    seen_before,
    smooth_flow,
)
from lightning_modules.pictures.flow import warp
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_flow_is_its_shift_and_its_bend() -> None:
    shift, bend = torch.tensor([[3.0, -2.0], [0.5, 1.0]]), random(2, 2, 4, 4)
    still = smooth_flow(shift, torch.zeros(2, 2, 4, 4), (5, 7))
    assert torch.equal(still, shift[:, :, None, None].expand(2, 2, 5, 7))
    flow = smooth_flow(shift, bend, (5, 7)) - shift[:, :, None, None]
    torch.testing.assert_close(flow[:, :, ::4, ::6], bend[:, :, ::3, ::3])


def test_what_comes_from_outside_does_not_count() -> None:
    flow = torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, 8, 10)
    expected = torch.zeros(8, 10)
    expected[2:, :-3] = 1
    assert torch.equal(seen_before(flow)[0, 0], expected)
    assert compound_loss(torch.ones(1, 3, 8, 10), torch.zeros(1, 3, 8, 10), flow + 100).item() == 0


def test_compound_loss_of_whole_pixels_is_a_mean_over_what_both_frames_show() -> None:
    before, now = random(2, 3, 8, 10), random(2, 3, 8, 10, seed=1)
    flow = torch.tensor([3.0, -2.0])[None, :, None, None].expand(2, 2, 8, 10)
    expected = (now[:, :, 2:, :-3] - before[:, :, :-2, 3:]).square().mean()
    torch.testing.assert_close(compound_loss(before, now, flow), expected, rtol=1e-5, atol=0)


def test_what_works_on_each_pixel_by_itself_is_consistent_and_a_fixed_pattern_is_not() -> None:
    pictures, pattern = random(2, 3, 24, 24).tanh(), random(1, 3, 24, 24, seed=1)
    flow = smooth_flow(torch.tensor([[2.5, 1.0], [-1.0, 0.3]]), 0.5 * random(2, 2, 4, 4, seed=2), (24, 24))
    moved = warp(pictures, flow)
    assert compound_loss(1 - 2 * pictures, 1 - 2 * moved, flow) < 1e-10
    assert difference_loss(moved - pictures, moved - pictures) == 0
    # A pattern that stays where it is while the picture moves: both frames have it, at different places.
    assert compound_loss(pictures + pattern, moved + pattern, flow) > 0.5
    assert difference_loss((moved + pattern) - (pictures + pattern), moved - pictures) < 1e-12


@pytest.fixture(scope="module")
def families() -> list[StyleFamily]:
    torch.manual_seed(0)
    fast, adain = FastStyle(styles=["a.png"], temporal_weight=1.0), AdaIN(temporal_weight=1.0)
    fast.take_pictures("styles", [random(1, 3, 32, 32).tanh()])
    for family in (fast, adain):
        family.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return [fast, adain]


@pytest.mark.network
@pytest.mark.parametrize("kind", ["compound", "difference"])
def test_a_picture_that_does_not_move_has_no_temporal_loss(kind: Consistency, families: list[StyleFamily]) -> None:
    batch = {"image": random(2, 3, 32, 32).tanh(), "style": random(2, 3, 32, 32, seed=1).tanh()}
    for family in families:
        family.temporal = TemporalOptions(kind, shift=0, bend=0, noise=0)
        assert family.losses(batch)["temporal"] < 1e-12
        family.temporal = TemporalOptions(kind)
        assert family.losses(batch)["temporal"] > 1e-8
