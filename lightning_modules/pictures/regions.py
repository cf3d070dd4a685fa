"""Maps of shares, such as those of an attention, as pictures."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor
from torch.nn import functional as F


def regions(shares: Tensor, side: int) -> Tensor:
    """Paints each pixel with the colours of its parts, mixed by their shares.

    Args:
        shares: of k parts, 0 or more: ``[N, k, H, W]``; they need not sum to 1.
        side: of the pictures in pixels, a multiple of H and of W.

    Returns:
        ``[N, 3, side, side]`` in [-1, 1].
    """
    colours = palette(shares.shape[1]).to(shares)
    weights = shares / shares.sum(1, keepdim=True).clamp_min(1e-8)
    return F.interpolate(torch.einsum("nkhw,kc->nchw", weights, colours), size=(side, side), mode="nearest")


def palette(count: int) -> Tensor:
    """Colours that differ, ``[count, 3]`` in [-1, 1]: hues around the circle, every second one darker.

    >>> palette(2).shape
    torch.Size([2, 3])
    """
    rows = [colorsys.hsv_to_rgb(number / count, 0.85, 0.65 if number % 2 else 1.0) for number in range(count)]
    return torch.tensor(rows) * 2 - 1
