"""Consistency of a video, learned from single pictures that are moved by a known flow.

Flows are those of ``pictures.flow``: pixels (x, y) to add to a place of the later frame to get to where it was before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import NonNegative
from lightning_modules.pictures.flow import warp

#: Places of the coarse grid, on each axis, between which a smooth flow is interpolated.
GRID = 4
#: ``compound``: the result of the moved picture is the moved result (Wang et al. 2020); ``difference``: the result
#: changes by as much as the picture did, which asks for no motion to be undone.
Consistency = Literal["compound", "difference"]


@dataclass(frozen=True)
class TemporalOptions:
    """How a picture is moved into the next frame of a video, and what is asked of its result.

    Args:
        kind: see ``Consistency``.
        shift: the whole picture moves by up to so many pixels on each axis.
        bend: standard deviation in pixels of a smooth flow that is added, by which things move apart.
        noise: standard deviation of the camera's noise, of pixels in [-1, 1].
    """

    kind: Consistency = "compound"
    shift: NonNegative = 8.0
    bend: NonNegative = 2.0
    noise: NonNegative = 0.02


def smooth_flow(shift: Tensor, bend: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow [N, 2, H, W] in pixels: a shift [N, 2], and a bend [N, 2, g, g] interpolated over the picture.

    The corners of the grid are those of the picture.
    """
    return shift[:, :, None, None] + F.interpolate(bend, size, mode="bicubic", align_corners=True)


def seen_before(flow: Tensor) -> Tensor:
    """1 where a flow [N, 2, H, W] leads to a place inside the picture, else 0: [N, 1, H, W]."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside[:, None].to(flow)


def compound_loss(before: Tensor, now: Tensor, flow: Tensor) -> Tensor:
    """Mean squared difference of two results, the earlier one moved by the flow, where the place was seen before.

    "Consistent Video Style Transfer via Compound Regularization", Wang et al. 2020.

    Args:
        before: results of the pictures, [N, C, H, W] in [-1, 1].
        now: results of the same pictures moved by ``flow``, and with noise.
        flow: [N, 2, H, W] in pixels.
    """
    seen = seen_before(flow)
    squares = (now.float() - warp(before.float(), flow)).square() * seen
    return squares.sum() / (seen.sum() * now.shape[1]).clamp(min=1)


def difference_loss(change: Tensor, expected: Tensor) -> Tensor:
    """Mean squared difference of a change of the results and that of their pictures, [N, C, H, W] each."""
    return F.mse_loss(change.float(), expected.float())
