"""Families that generate images from noise, and are evaluated by their samples (FID and others)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, GenerationEvaluator


class GenerativeFamily(ImageFamily):
    """A family with an infinite sequence of samples per seed."""

    @abstractmethod
    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """See ``Abilities.generate``."""

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """See ``ImageFamily.previews``: 64 samples."""
        return {"samples": Preview(self.generate(torch.arange(64), seed=seed), columns=8)}

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares samples with real images: FID and others."""
        if options.metrics == ():
            return None
        return GenerationEvaluator(
            lambda index, batch: self.generate(index, seed=options.seed), options, self.described(), family=self
        )
