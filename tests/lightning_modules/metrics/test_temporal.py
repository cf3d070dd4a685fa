"""Flicker against known differences and a known motion."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.metrics.temporal import TemporalConsistency
from lightning_modules.pictures.flow import motion_between, warp
from tests.clip import Clip, still
from tests.pictures import photographs


def test_the_error_of_a_known_difference() -> None:
    metric = TemporalConsistency()
    before = photographs(16)[:1] / 2
    metric.update(before, before + 0.2, still().visible)
    metric.update(before, before - 0.4, still().visible)
    # In [0, 1] the differences are 0.1 and 0.2.
    found = metric.compute()
    assert found["warping_error"].item() == pytest.approx(0.15, abs=1e-6)
    assert found["warped_psnr"].item() == pytest.approx(-10 * math.log10((0.01 + 0.04) / 2), abs=1e-4)


def test_hidden_places_do_not_count() -> None:
    metric = TemporalConsistency()
    motion = still()
    motion.visible[..., :8] = 0
    before, now = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    now[..., :8], now[..., 8:] = 1, 0.1
    metric.update(before, now, motion.visible)
    assert metric.compute()["warping_error"].item() == pytest.approx(0.05, abs=1e-7)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert TemporalConsistency().compute()["warping_error"].isnan()


def test_parts_add_up(clip: Clip) -> None:
    """Two ranks, or two videos, are as one: states are sums."""
    steps = [(a, b, motion_between(a, b).visible) for a, b in zip(clip.frames[:4], clip.frames[1:5], strict=True)]
    whole, parts = TemporalConsistency(), [TemporalConsistency(), TemporalConsistency()]
    for number, step in enumerate(steps):
        whole.update(*step)
        parts[number % 2].update(*step)
    summed = sum(part.absolute for part in parts) / sum(part.count for part in parts)
    assert whole.compute()["warping_error"].item() == pytest.approx(float(summed), rel=1e-6)


def test_a_video_that_only_moves_does_not_flicker() -> None:
    clip = Clip(3, pan=2.0, zoom=0.0, noise=0.0)
    moving, boiling = TemporalConsistency(), TemporalConsistency()
    noise = torch.Generator().manual_seed(0)
    for before, now in zip(clip.frames, clip.frames[1:], strict=False):
        motion = motion_between(before, now)
        carried = warp(before, motion.flow)
        moving.update(carried, now, motion.visible)
        boiling.update(carried, now + 0.1 * torch.randn(now.shape, generator=noise), motion.visible)
    assert moving.compute()["warping_error"] < 0.01
    # Noise of deviation s has the mean magnitude s sqrt(2 / pi).
    assert boiling.compute()["warping_error"].item() == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.1)
