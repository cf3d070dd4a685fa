"""Families for unpaired image translation between two domains, evaluated against the target domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from lightning_modules.core.abilities import Batch, BatchSpec, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics import similarity
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures, TableEvaluator
from lightning_modules.metrics.generation import GenerationMetrics
from lightning_modules.metrics.similarity import SourceSimilarity
from lightning_modules.metrics.statistics import FeatureStatistics
from lightning_modules.networks.lpips import LPIPS

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
        """Grid with, for each direction, a row of up to eight held-out images above a row of their translations."""
        keys = {direction: domains(direction)[0] for direction in self.directions()}
        columns = min(8, *(len(held_out[key]) for key in keys.values()))
        rows: list[Tensor] = []
        for direction, key in keys.items():
            originals = held_out[key][:columns]
            rows += [originals, self.translate(originals, direction).to(originals)]
        return Preview(torch.cat(rows), columns=columns)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares translations with images of the target domain, and with their sources."""
        return None if options.metrics == () else TranslationEvaluator(self, options)


class TranslationEvaluator(TableEvaluator):
    """Held-out images of the source domain, each translated once: FID and the others to the target domain's images, by
    ``LPIPS`` and ``SSIM`` how much of the originals is left.

    Args:
        family: what translates.
        options: how to measure; there are never more samples than held-out images.

    Raises:
        ValueError: a metric or a direction that the family does not have.
    """

    def __init__(self, family: TranslatingFamily, options: EvaluationOptions) -> None:
        super().__init__("translation", options, family.described())
        self.family = family
        self.direction = family.known_direction(options.direction)
        source, target = domains(self.direction)
        self.source = Pictures(source)
        self._kept = [name for name in self.own if name in similarity.COMPUTED]
        self._features = [name for name in self.own if name not in similarity.COMPUTED]
        if self._features:
            self.references = (Pictures(target, options.reference_split, options.reference_samples),)
        self._reference: FeatureStatistics | None = None
        self._likeness: GenerationMetrics | None = None
        self._similarity: SourceSimilarity | None = None

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        return {} if self._likeness is None else self._likeness.settings

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        super().load(files, device)
        if self._kept:
            lpips = LPIPS(files["vgg16_lpips"]).to(device) if "lpips" in self._kept else None
            self._similarity = SourceSimilarity(lpips, self._kept).to(device)

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """See ``Evaluator``."""
        self._reference = statistics

    def begin(self, examples: Batch, available: int) -> None:
        """See ``Evaluator``."""
        # A second translation of one image would be no other sample.
        self.num_samples = min(self.options.num_samples, available)
        if self._reference is not None and self.extractor is not None:
            likeness = GenerationMetrics(self.extractor, self._reference, self._features, num_samples=self.num_samples)
            self._likeness = likeness.to(self.device)

    def update(self, index: Tensor, batch: Batch | None) -> None:
        """See ``Evaluator``."""
        assert batch is not None
        sources, translated = to_uint8(batch["image"]), to_uint8(self.family.translate(batch["image"], self.direction))
        if self._likeness is not None:
            self._likeness.update(translated, index.to(translated.device))
        if self._similarity is not None:
            self._similarity.update(sources, translated)
        self.update_foreign(sources, translated)

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        found = self._likeness.compute() if self._likeness is not None else {}
        if self._similarity is not None:
            found |= self._similarity.compute()
        return {**found, **super().compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        for metric in (self._likeness, self._similarity):
            if metric is not None:
                metric.reset()


def domains(direction: str) -> tuple[str, str]:
    """The batch's keys of a direction's source and target: ``("image", "image_b")`` of ``a-to-b``.

    Raises:
        ValueError: a direction is called otherwise.
    """
    ends: Sequence[str] = direction.split("-to-")
    if len(ends) != 2 or ends[0] == ends[1] or not set(ends) <= DOMAINS.keys():
        raise ValueError(f"direction {direction}: a family's directions are called a-to-b and b-to-a")
    return DOMAINS[ends[0]], DOMAINS[ends[1]]
