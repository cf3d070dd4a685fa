"""Families for unpaired image translation between two domains, evaluated against the target domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_modules.core.abilities import Batch, BatchSpec, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures
from lightning_modules.metrics.sources import SourceEvaluator

#: The batch's key of each domain.
DOMAINS = {"a": "image", "b": "image_b"}


class TranslatingFamily(ImageFamily):
    """A family that translates between domain A (a batch's ``image``) and domain B (``image_b``), unpaired."""

    def directions(self) -> tuple[str, ...]:
        """Directions that ``translate`` accepts, the main one first; a family may have only one."""
        return ("a-to-b", "b-to-a")

    @abstractmethod
    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Translates images into the other domain.

        Args:
            images: [N, C, H, W] in [-1, 1], of the source domain.
            direction: one of ``directions``.

        Returns:
            Images of the same shape, in [-1, 1].
        """

    def batch_spec(self) -> BatchSpec:
        """See ``Abilities``: images of both domains."""
        return replace(super().batch_spec(), images=tuple(DOMAINS.values()))

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Grid of held-out images of each domain above their translations."""
        return {"samples": self.sheet(held_out)}

    def sheet(self, held_out: Batch) -> Preview:
        """Grid with, for each direction, a row of up to eight held-out images above a row of their translations.

        Of a batch that is ``paired``, below these what they were to become.
        """
        keys = {direction: domains(direction)[0] for direction in self.directions()}
        columns = min(8, *(len(held_out[key]) for key in keys.values()))
        rows: list[Tensor] = []
        for direction, key in keys.items():
            originals = held_out[key][:columns]
            rows += [originals, self.translate(originals, direction).to(originals)]
            if held_out.get("paired"):
                rows.append(held_out[domains(direction)[1]][:columns])
        return Preview(torch.cat(rows), columns=columns)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares translations of held-out images with images of the target domain, and with their sources.

        By ``LPIPS`` and ``SSIM`` one sees how much of the originals is left. With paired data (``UnpairedData``),
        ``truth_lpips`` and others compare translations with what they were to become.
        """
        if options.metrics == ():
            return None
        direction = self.known_direction(options.direction)
        source, target = domains(direction)
        return SourceEvaluator(
            "translation",
            lambda images: self.translate(images, direction),
            options,
            self.described(),
            source=Pictures(source, options.split),
            reference=Pictures(target, options.reference_split, options.reference_samples),
        )


def domains(direction: str) -> tuple[str, str]:
    """The batch's keys of a direction's source and target: ``("image", "image_b")`` of ``a-to-b``.

    Raises:
        ValueError: a direction is called otherwise.
    """
    ends: Sequence[str] = direction.split("-to-")
    if len(ends) != 2 or ends[0] == ends[1] or not set(ends) <= DOMAINS.keys():
        raise ValueError(f"direction {direction}: a family's directions are called a-to-b and b-to-a")
    return DOMAINS[ends[0]], DOMAINS[ends[1]]
