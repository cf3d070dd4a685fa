"""Random codes N(0, I), such as latents: each depends on a seed and its number alone, or on a picture alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from gesso.common.randomness import mix_seed


def numbered_codes(index: Iterable[int], dim: int, *, seed: int) -> Tensor:
    """Codes number ``index`` of the infinite sequence ``seed``, float32 [N, dim], on the CPU; each is found at once."""
    generator = torch.Generator()
    return torch.stack([torch.randn(dim, generator=generator.manual_seed(mix_seed(seed, number))) for number in index])


def drawn_codes(count: int, dim: int, *, seed: int) -> Tensor:
    """The first ``count`` codes that a generator of this seed draws, one after the other: float32 [count, dim]."""
    # Not all in one draw: a code depends on its number alone, not on how many are drawn.
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
