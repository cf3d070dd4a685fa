"""Halving and doubling of maps with little aliasing (Zhang 2019, arXiv:1904.11486), as CUT's networks do it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.padding import reflect


def blur_down(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` at half the size, odd sides rounded up: the filter [1, 2, 1] / 4 both ways, mirrored borders."""
    # The filter is two means of two, one after the other; the second takes the step.
    return F.avg_pool2d(F.avg_pool2d(reflect(x), 2, stride=1), 2)


def smooth_up(x: Tensor, size: Sequence[int]) -> Tensor:
    """``[N, C, h, w]`` at twice the size, then cut to ``size``: the filter [1, 3, 3, 1] / 4, repeated borders."""
    # What bilinear interpolation is at this factor.
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = size
    return doubled[:, :, :height, :width]
