"""Crops of pictures: at random places, and disjoint ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_squares(images: Tensor, noise: Tensor, *, size: int, scales: tuple[float, float]) -> Tensor:
    """One square of random place and side of each picture, mirrored or not, brought to one size (bilinear).

    Args:
        images: [N, C, H, W], squares.
        noise: [N, 4] in [0, 1): mirrored or not, side, and place across and down.
        size: height and width of the result.
        scales: smallest and largest side, as a share of the picture's.

    Returns:
        [N, C, size, size].
    """
    noise = noise.to(images.dtype)
    scale = noise[:, 1] * (scales[1] - scales[0]) + scales[0]
    offset = (noise[:, 2:] * 2 - 1) * (1 - scale)[:, None]
    # From pixel centre to pixel centre: a square of ``size`` pixels keeps its pixels.
    line = (torch.arange(size, device=images.device, dtype=images.dtype) * 2 + 1) / size - 1
    across = line * (noise[:, :1].round() * 2 - 1) * scale[:, None] + offset[:, :1]
    down = line * scale[:, None] + offset[:, 1:]
    grid = torch.stack([across[:, None].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)], 3)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def quarters(images: Tensor) -> Tensor:
    """The four quarters of each picture: upper left, lower right, upper right, lower left; a middle row is left out.

    Args:
        images: [N, C, H, W], of 2 pixels a side or more.

    Returns:
        [N, 4, C, H // 2, W // 2].
    """
    height, width = images.shape[2] // 2, images.shape[3] // 2
    top, bottom = images[:, :, :height], images[:, :, -height:]
    return torch.stack([top[..., :width], bottom[..., -width:], top[..., -width:], bottom[..., :width]], 1)
