"""Random codes of styles: each depends on its number alone, or on a picture alone."""

from __future__ import annotations

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8


def drawn_codes(count: int, dim: int, *, seed: int) -> Tensor:
    """``count`` codes N(0, I) of the sequence ``seed``, float32 [count, dim], on the CPU."""
    # One after the other: a code depends on its number alone, not on how many are drawn.
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(dim, generator=generator) for _ in range(count)])


def codes_of_pictures(images: Tensor, dim: int) -> Tensor:
    """A code N(0, I) for each picture, drawn out of its pixels: the same in every batch; float32 [N, dim], on the CPU.

    Args:
        images: [N, C, H, W] in [-1, 1].
        dim: length of a code.
    """
    pixels = to_uint8(images).flatten(1).long()
    places = torch.arange(1, pixels.shape[1] + 1, device=pixels.device)
    keys = (pixels * places).sum(1).tolist()
    return torch.cat([drawn_codes(1, dim, seed=key) for key in keys])
