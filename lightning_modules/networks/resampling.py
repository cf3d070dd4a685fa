"""Halving and doubling of maps with little aliasing (Zhang 2019, arXiv:1904.11486), as CUT's networks do it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.padding import reflect


def blur_down(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` at half the size, odd sides rounded up: the filter [1, 2, 1] / 4 both ways, mirrored borders."""
    # Made where the map is: nothing is copied to the device.
    kernel = x.new_full((x.shape[1], 1, 3, 3), 1 / 16)
    kernel[:, :, 1].mul_(2)
    kernel[:, :, :, 1].mul_(2)
    return F.conv2d(reflect(x), kernel, stride=2, groups=x.shape[1])


def smooth_up(x: Tensor, size: Sequence[int]) -> Tensor:
    """``[N, C, h, w]`` at twice the size, then cut to ``size``: the filter [1, 3, 3, 1] / 4, repeated borders."""
    # What bilinear interpolation is at this factor.
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = size
    return doubled[:, :, :height, :width]
