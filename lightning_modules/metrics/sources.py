"""The evaluator of pictures that are made out of pictures: translations, reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from lightning_modules.core.abilities import Batch
from lightning_modules.metrics import similarity
from lightning_modules.metrics.evaluator import EvaluationOptions, Pictures, TableEvaluator
from lightning_modules.metrics.generation import GenerationMetrics
from lightning_modules.metrics.similarity import SourceSimilarity
from lightning_modules.metrics.specs import Kind
from lightning_modules.metrics.statistics import FeatureStatistics
from lightning_modules.networks.lpips import LPIPS

#: What the metrics to the truth are called, and those of a plain copy, before the names of ``SourceSimilarity``.
TRUTH, COPIED = "truth_", "copied_"


class SourceEvaluator(TableEvaluator):
    """Held-out pictures, each made into another once: FID and others to real ones, LPIPS and others to their sources.

    Where it is known what they are to become, LPIPS and others to that as well, of what was made and of the sources.

    Args:
        kind: of the family.
        make: maps pictures [N, C, H, W] in [-1, 1] to others of the same shape.
        options: how to measure; there are never more samples than held-out pictures.
        what: the family in error messages, such as ``a CycleGAN``.
        source: the pictures that ``make`` gets.
        reference: the real ones that FID and others compare with.

    Raises:
        ValueError: a metric that cannot be measured of this kind.
    """

    def __init__(
        self,
        kind: Kind,
        make: Callable[[Tensor], Tensor],
        options: EvaluationOptions,
        what: str,
        *,
        source: Pictures,
        reference: Pictures,
    ) -> None:
        super().__init__(kind, options, what)
        self.make, self.source = make, source
        self._kept = [name for name in self.own if name in similarity.COMPUTED]
        self._true = [name.removeprefix(TRUTH) for name in self.own if name.startswith(TRUTH)]
        self.truth = bool(self._true)
        self._features = [name for name in self.own if name not in similarity.COMPUTED and not name.startswith(TRUTH)]
        if self._features:
            self.references = (reference,)
        self._reference: FeatureStatistics | None = None
        self._likeness: GenerationMetrics | None = None
        self._similarity: SourceSimilarity | None = None
        #: Of what was made, and of the sources, to the truth.
        self._to_truth: dict[str, SourceSimilarity] = {}

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        return {} if self._likeness is None else self._likeness.settings

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        super().load(files, device)
        lpips = LPIPS(files["vgg16_lpips"]).to(device) if "lpips" in (*self._kept, *self._true) else None
        if self._kept:
            self._similarity = SourceSimilarity(lpips, self._kept).to(device)
        if self._true:
            self._to_truth = {of: SourceSimilarity(lpips, self._true).to(device) for of in (TRUTH, COPIED)}

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """See ``Evaluator``."""
        self._reference = statistics

    def begin(self, examples: Batch, available: int) -> None:
        """See ``Evaluator``."""
        # What is made of a picture a second time would be no other sample.
        self.num_samples = min(self.options.num_samples, available)
        if self._reference is not None and self.extractor is not None:
            likeness = GenerationMetrics(self.extractor, self._reference, self._features, num_samples=self.num_samples)
            self._likeness = likeness.to(self.device)

    def update(self, index: Tensor, batch: Batch | None) -> None:
        """See ``Evaluator``."""
        assert batch is not None
        sources, made = to_uint8(batch["image"]), to_uint8(self.make(batch["image"]))
        if self._likeness is not None:
            self._likeness.update(made, index.to(made.device))
        if self._similarity is not None:
            self._similarity.update(sources, made)
        if self._to_truth:
            truth = to_uint8(batch["truth"])
            self._to_truth[TRUTH].update(truth, made)
            self._to_truth[COPIED].update(truth, sources)
        self.update_foreign(sources, made)

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        found = self._likeness.compute() if self._likeness is not None else {}
        if self._similarity is not None:
            found |= self._similarity.compute()
        for of, metric in self._to_truth.items():
            found |= {f"{of}{name}": value for name, value in metric.compute().items()}
        return {**found, **super().compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        for metric in (self._likeness, self._similarity, *self._to_truth.values()):
            if metric is not None:
                metric.reset()
