"""Sizes of single pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def fit(image: Tensor, side: int) -> Tensor:
    """The image [N, C, H, W] in [-1, 1] with its longer side brought to ``side`` pixels."""
    height, width = image.shape[2:]
    scale = side / max(height, width)
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def square(image: Tensor, side: int) -> Tensor:
    """The largest centred square, brought to ``side`` pixels."""
    height, width = image.shape[2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return resize(image[:, :, top : top + edge, left : left + edge], (side, side))


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """The image at another height and width, antialiased, in [-1, 1]."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    return F.interpolate(image, tuple(size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
