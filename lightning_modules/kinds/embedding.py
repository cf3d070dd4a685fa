"""Families that encode pictures into vectors and make none: evaluated by what is found by the vectors."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator
from lightning_modules.metrics.retrieval import CodesEvaluator


class EmbeddingFamily(ImageFamily):
    """A family that encodes images [N, C, H, W] into vectors [N, ``code_dim``]."""

    code_dim: int

    @abstractmethod
    def codes(self, images: Tensor) -> Tensor:
        """See ``Abilities.codes``."""

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Held-out images (left), each before those of the batch whose codes are nearest, the nearest first."""
        return {"neighbours": self.sheet(held_out)}

    def sheet(self, held_out: Batch) -> Preview:
        """Up to eight held-out images (left), each before up to six whose codes are nearest."""
        images = held_out["image"]
        codes = F.normalize(self.codes(images).float(), dim=1)
        # Itself comes first.
        likeness = (codes @ codes.T).fill_diagonal_(torch.inf)
        columns = min(7, len(images))
        nearest = likeness.topk(columns, dim=1).indices[:8]
        return Preview(images[nearest.flatten()], columns)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Retrieval of held-out images from other parts of them."""
        return None if options.metrics == () else CodesEvaluator(self, options, code_dim=self.code_dim)
