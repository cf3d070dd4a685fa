"""Motion against known shifts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.pictures.flow import consistent, motion_between, warp
from lightning_modules.pictures.smoothing import TemporalSmoother
from tests.clip import SIDE, Clip
from tests.pictures import photographs


def test_a_warp_by_whole_pixels_moves_them() -> None:
    picture = photographs(40)[:1]
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 40, 40)
    torch.testing.assert_close(warp(picture, flow)[..., 2:, :-3], picture[..., :-2, 3:], rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(picture, torch.zeros_like(flow)), picture, rtol=0, atol=1e-5)


def test_a_warp_by_parts_of_a_pixel_follows_a_wave() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")

    def wave(x: Tensor, y: Tensor) -> Tensor:
        return (torch.sin(x / 4) * torch.cos(y / 5))[None, None]

    flow = torch.stack([0.3 + x / 100, -0.6 + y / 80])[None]
    expected = wave(x + flow[0, 0], y + flow[0, 1])
    torch.testing.assert_close(warp(wave(x, y), flow)[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], rtol=0, atol=0.015)


@pytest.mark.parametrize(("pan", "zoom"), [(3.0, 0.0), (-1.5, 0.0), (0.7, 0.02)])
@pytest.mark.parametrize("longest", [640, 80])
def test_the_flow_is_the_cameras(pan: float, zoom: float, longest: int) -> None:
    clip = Clip(2, pan=pan, zoom=zoom)
    motion = motion_between(*clip.frames, longest=longest)
    error = (motion.flow - clip.flows[1]).norm(dim=1)[clip.background(1)[:, 0] > 0]
    assert error.median() < (0.15 if longest == 640 else 0.3)
    assert motion.flow.shape == (1, 2, SIDE, SIDE)
    assert motion.visible.shape == motion.trust.shape == (1, 1, SIDE, SIDE)
    assert (motion.visible * clip.background(1)).sum() > 0.9 * clip.background(1).sum()


def test_what_was_covered_is_not_visible() -> None:
    clip = Clip(20)
    (now, before), motion = (clip.covers[k] for k in (19, 17)), motion_between(clip.frames[17], clip.frames[19])
    uncovered = torch.from_numpy(before & ~now)
    assert uncovered.sum() > 100
    # All but the outline, which no flow finds to the pixel.
    assert motion.visible[0, 0][uncovered].mean() < 0.2
    assert motion.trust[0, 0][uncovered].mean() < 0.15
    # The cup itself is seen to move.
    inside = torch.from_numpy(cv2.erode(now.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0)
    assert motion.visible[0, 0][inside].mean() > 0.9


def test_the_check_of_both_directions_is_the_papers() -> None:
    back = np.zeros((8, 10, 2), np.float32)
    back[..., 0] = 2
    assert consistent(back, -back)[:, :-2].all()
    # Two columns come from outside.
    assert not consistent(back, -back)[:, -2:].any()
    # |w + w'|^2 <= 0.01 (|w|^2 + |w'|^2) + 0.5
    for gap, passes in ((0.75, True), (0.80, False)):
        forth = -back + np.array([0, gap], np.float32)
        limit = 0.01 * (4 + 4 + gap**2) + 0.5
        assert (gap**2 <= limit) is passes
        assert consistent(back, forth)[:, :-2].all() == passes
    # |grad u|^2 + |grad v|^2 <= 0.01 |w|^2 + 0.002
    for slope, passes in ((0.1, True), (0.5, False)):
        sheared = back + np.array([0, slope], np.float32) * np.arange(8, dtype=np.float32)[:, None, None]
        forth = -sheared
        flat = consistent(sheared, forth)[2:4, 2:5]
        assert flat.all() == passes


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (12, 12), (33, 61)])
def test_any_size_has_a_motion(height: int, width: int) -> None:
    pictures = photographs(64)[:2, :, :height, :width]
    motion = motion_between(pictures[:1], pictures[:1])
    assert motion.flow.shape == (1, 2, height, width)
    assert motion.flow.abs().max() == 0
    assert motion.visible.min() == motion.trust.min() == 1
    smoother = TemporalSmoother(0.8)
    for picture in pictures:
        assert smoother(picture[None], picture[None]).shape == (1, 3, height, width)
