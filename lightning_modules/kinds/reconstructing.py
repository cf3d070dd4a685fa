"""Families that encode pictures and decode them again, evaluated by what comes back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures
from lightning_modules.metrics.sources import SourceEvaluator


class ReconstructingFamily(ImageFamily):
    """A family that encodes images ``[N, C, H, W]`` into maps of latents, and decodes these."""

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Abilities.encode``."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """See ``Abilities.decode_latents``."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images of the posterior's mean, in [-1, 1], like ``images`` [N, C, H, W]."""
        return self.decode_latents(self.encode(images)[0])

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Rows of held-out images, each above the row of its reconstructions."""
        return {"samples": self._pairs(held_out["image"], 10)}

    def sheet(self, held_out: Batch) -> Preview:
        """Up to eight held-out images above their reconstructions."""
        return self._pairs(held_out["image"][:8], 8)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares held-out images with their reconstructions: PSNR, LPIPS, SSIM, and FID to the same held-out images.

        That FID is the literature's rFID.
        """
        return reconstruction_evaluator(self.reconstruct, options, self.described())

    def _pairs(self, images: Tensor, columns: int) -> Preview:
        columns = min(columns, len(images))
        made = self.reconstruct(images).to(images)
        rows = zip(images.split(columns), made.split(columns), strict=True)
        return Preview(torch.cat([row for both in rows for row in both]), columns)


def reconstruction_evaluator(
    reconstruct: Callable[[Tensor], Tensor], options: EvaluationOptions, what: str
) -> Evaluator | None:
    """Compares held-out images with their reconstructions; None if no metric is asked for.

    Args:
        reconstruct: images [N, C, H, W] in [-1, 1] to the same shape.
        options: of the evaluation.
        what: the family in error messages, such as ``a VAE``.
    """
    if options.metrics == ():
        return None
    return SourceEvaluator(
        "reconstruction",
        reconstruct,
        options,
        what,
        source=Pictures(split=options.split),
        reference=Pictures(split=options.split, limit=options.reference_samples),
    )
