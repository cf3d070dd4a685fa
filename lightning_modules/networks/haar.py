"""Haar wavelets as pooling that loses nothing (Yoo et al. 2019, "WCT2", arXiv:1903.09760, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: Signs at top left, top right, bottom left and bottom right of LL, LH, HL and HH; each is half of them.
SIGNS = ((1, 1, 1, 1), (-1, 1, -1, 1), (-1, -1, 1, 1), (1, -1, -1, 1))


def haar_pool(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Low pass LL, and details LH (vertical edges), HL (horizontal ones) and HH, of half the sides.

    Args:
        x: [N, C, H, W]; the last row or column of an odd side is repeated.

    Returns:
        Four maps [N, C, H / 2, W / 2], rounded up. The transform is orthogonal: LL is twice the mean.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    corners = [x[..., top::2, left::2] * 0.5 for top in (0, 1) for left in (0, 1)]
    low, vertical, horizontal, diagonal = (_signed_sum(corners, signs) for signs in SIGNS)
    return low, vertical, horizontal, diagonal


def haar_unpool(parts: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """The inverse of ``haar_pool``.

    Args:
        parts: LL, LH, HL and HH, [N, C, h, w] each.
        size: height and width of the result: 2 h and 2 w, or 1 less for odd sides.
    """
    halves = [part * 0.5 for part in parts]
    return _interleaved([_signed_sum(halves, signs) for signs in zip(*SIGNS, strict=True)], size)


def haar_unpool_part(part: Tensor, number: int, size: Sequence[int]) -> Tensor:
    """``haar_unpool`` of one of the four parts alone, [N, C, h, w]: that of all is the sum of these."""
    half = part * 0.5
    return _interleaved([half if sign > 0 else -half for sign in SIGNS[number]], size)


def _signed_sum(values: Sequence[Tensor], signs: Sequence[int]) -> Tensor:
    total = values[0] if signs[0] > 0 else -values[0]
    for value, sign in zip(values[1:], signs[1:], strict=True):
        total = total + value if sign > 0 else total - value
    return total


def _interleaved(corners: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    whole = F.pixel_shuffle(torch.stack(list(corners), 2).flatten(1, 2), 2)
    return whole[..., : size[0], : size[1]]
