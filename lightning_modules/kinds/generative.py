"""Families that make pictures out of nothing, and are scored by what they make (FID and the others)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lightning_modules.core.family import Batch, ImageFamily, Preview


class GenerativeFamily(ImageFamily):
    """A family with an infinite sequence of samples for every seed."""

    @abstractmethod
    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """Samples number ``index`` (int64 [N]) of the infinite sequence ``seed``: NCHW in [-1, 1].

        Each sample depends on (seed, index) alone, so that any number of ranks makes the same set.
        """

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """See ``ImageFamily.previews``: 64 samples."""
        return {"samples": Preview(self.generate(torch.arange(64), seed=seed), columns=8)}


def generator(module: ImageFamily) -> GenerativeFamily:
    """``module``, if it makes samples; a ValueError if not."""
    if isinstance(module, GenerativeFamily):
        return module
    raise ValueError(f"a {type(module).__name__} makes no samples: it can neither generate nor be scored by them")
