"""Crops of pictures: at random places, and disjoint ones."""

from __future__ import annotations

from collections.abc import Sequence

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


def random_parts(pictures: Sequence[Tensor], numbers: Tensor, noise: Tensor, *, size: int) -> Tensor:
    """A square at a random place of each picture that is asked for, pixel by pixel.

    Args:
        pictures: [1, C, H, W] each, of any sizes; on any device.
        numbers: which pictures, int64 [N].
        noise: [N, 2] in [0, 1): place down and across.
        size: height and width of the result. Of pictures that are smaller, the largest square that fits into each is
            enlarged (bilinear).

    Returns:
        [N, C, size, size], on the device of ``numbers``.
    """
    device = numbers.device
    sizes = [picture.shape[2:] for picture in pictures]
    highest, widest = (max(size[axis] for size in sizes) for axis in (0, 1))
    # Without waiting for the device.
    sides = torch.tensor(sizes).to(device, non_blocking=True)
    whole = torch.cat(
        [F.pad(picture, (0, widest - picture.shape[3], 0, highest - picture.shape[2])) for picture in pictures]
    ).to(device)
    edge = min(size, *map(min, sizes))
    # Double: float32 noise just below 1 must not round up to it.
    corners = (noise.double() * (sides[numbers] - edge + 1)).long()
    down, across = (corners[:, axis, None] + torch.arange(edge, device=device) for axis in (0, 1))
    rows = whole[numbers[:, None, None], :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
    return rows if edge == size else F.interpolate(rows, (size, size), mode="bilinear", align_corners=False)
