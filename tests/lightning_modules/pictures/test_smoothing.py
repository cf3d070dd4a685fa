"""Smoothing without ghosts or blur."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.metrics.temporal import TemporalConsistency
from lightning_modules.pictures.flow import motion_between, warp
from lightning_modules.pictures.smoothing import TemporalSmoother, blend
from tests.clip import SIDE, Clip, sharpness
from tests.pictures import paintings, photographs


def test_nothing_is_done_at_0_and_1_is_no_strength(clip: Clip) -> None:
    smoother = TemporalSmoother(0)
    for frame in clip.frames[:3]:
        assert smoother(frame, frame) is frame
    assert smoother.raw.compute() == smoother.smoothed.compute()
    for bad in (-0.1, 1.0, 7.0, math.nan):
        with pytest.raises(ValueError, match="smooth is"):
            TemporalSmoother(bad)


def test_blending_is_the_formula_where_nothing_is_averaged_away() -> None:
    """Smooth pictures have no detail to bring back."""
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    trust = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    trust = F.avg_pool2d(trust, 9, 1, 4)
    expected = ramp + trust * 0.8 * ((ramp + 0.1) - ramp)
    torch.testing.assert_close(blend(ramp, ramp + 0.1, trust, 0.8), expected, rtol=0, atol=6e-3)


def test_unrelated_textures_keep_their_strength() -> None:
    """An average of two has 1 / sqrt(2) of it."""
    one, two = (0.2 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    mixed = blend(one, two, torch.ones(1, 1, 96, 96), 0.5)
    assert (one + two).div(2).std().item() == pytest.approx(0.2 / math.sqrt(2), rel=0.02)
    assert mixed.std().item() == pytest.approx(0.2, rel=0.03)


def test_a_cut_leaves_nothing_of_the_scene_before(clip: Clip) -> None:
    one, two, three = photographs(SIDE).split(1)
    assert motion_between(one, two).trust.max() == 0
    for first, second in ((one, two), (two, three), (clip.frames[5], two)):
        smoother = TemporalSmoother(0.9)
        smoother(first, first)
        torch.testing.assert_close(smoother(second, second), second, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_no_ghost_follows_a_moving_thing() -> None:
    """Taken as it is, a video needs no smoothing: what differs afterwards is a trail, or blur."""
    clip = Clip(30, noise=0.004)
    smoother = TemporalSmoother(0.9)
    naive = clip.frames[0]
    errors: list[tuple[float, float]] = []
    for t, frame in enumerate(clip.frames):
        out = smoother(frame, frame)
        if t == 0:
            continue
        naive = torch.lerp(frame, warp(naive, motion_between(clip.frames[t - 1], frame).flow), 0.9)
        trail = torch.from_numpy(np.any(clip.covers[max(0, t - 4) : t], axis=0) & ~clip.covers[t])[None, None].float()
        found = [((x - frame).abs().mean(1, keepdim=True) / 2 * trail).sum() / trail.sum() for x in (out, naive)]
        errors.append((found[0].item(), found[1].item()))
        edge = torch.from_numpy(cv2.morphologyEx(clip.covers[t].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))))
        outline = edge[None, None].float()
        assert sharpness(out, outline) > 0.9 * sharpness(frame, outline)
        assert sharpness(out) > 0.95 * sharpness(frame)
    ours, theirs = np.mean(errors, 0)
    assert ours < 0.012
    # Without the masks there is one.
    assert theirs > 4 * ours


def test_the_style_may_have_another_size(clip: Clip) -> None:
    smoother = TemporalSmoother(0.8)
    noise = torch.Generator().manual_seed(0)
    for frame in clip.frames[:8]:
        small = F.interpolate(frame, (97, 120), mode="bilinear", antialias=True)
        assert smoother(frame, small + 0.1 * torch.randn(small.shape, generator=noise)).shape == (1, 3, 97, 120)
    assert smoother.smoothed.compute()["warping_error"] < 0.6 * smoother.raw.compute()["warping_error"]


@pytest.fixture(scope="module")
def stylised(clip: Clip) -> list[list[Tensor]]:
    """The clip in two styles, frame by frame, by the published AdaIN."""
    from datamodules.assets.fetching import fetch
    from lightning_modules.losses.style import mean_std
    from lightning_modules.networks.adain import Decoder
    from lightning_modules.networks.instance_norm import adain
    from lightning_modules.networks.vgg import VGG19

    encoder, decoder = VGG19(fetch("vgg19_normalized", progress=False)), Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))

    def features(picture: Tensor) -> Tensor:
        return encoder(picture, ("relu4_1",))["relu4_1"]

    with torch.no_grad():
        styles = [mean_std(features(style)) for style in paintings(256).split(1)]
        return [[decoder(adain(features(x), *style)).clamp(-1, 1) for x in clip.frames] for style in styles]


@pytest.mark.proof
def test_real_style_transfer_flickers_less_and_stays_sharp(clip: Clip, stylised: list[list[Tensor]]) -> None:
    for raw in stylised:
        smoother = TemporalSmoother(0.8)
        out = [smoother(content, styled) for content, styled in zip(clip.frames, raw, strict=True)]
        reported = smoother.smoothed.compute()["warping_error"] / smoother.raw.compute()["warping_error"]
        assert reported < 0.6
        assert smoother.smoothed.compute()["warped_psnr"] > smoother.raw.compute()["warped_psnr"] + 4
        # By the camera's own motion, and nothing that the smoother made: no mask, no flow of it.
        flicker = {}
        for name, video in (("raw", raw), ("out", out)):
            known = TemporalConsistency()
            for t in range(1, len(video)):
                known.update(warp(video[t - 1], clip.flows[t]), video[t], clip.background(t))
            flicker[name] = known.compute()["warping_error"].item()
        assert flicker["out"] < 0.6 * flicker["raw"]
        assert np.mean([sharpness(x) for x in out[8:]]) > 0.8 * np.mean([sharpness(x) for x in raw[8:]])
        # Still the same picture: colours do not drift away.
        for mine, theirs in zip(out[8::8], raw[8::8], strict=True):
            assert (mine.mean((2, 3)) - theirs.mean((2, 3))).abs().max() / 2 < 0.02
