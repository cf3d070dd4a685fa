"""Evaluators, which measure a family: their interface, their common base and the one for generated samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from lightning_modules.metrics import specs
from lightning_modules.metrics.diversity import REAL
from lightning_modules.metrics.features import FeatureExtractor, build_extractor, check_classifier, measuring
from lightning_modules.metrics.generation import COMPUTED, GenerationMetrics
from lightning_modules.metrics.probes import DIVERSITY, Probed, Probes
from lightning_modules.metrics.specs import Direction, ExtractorName, Kind, MetricSpec, Occasion
from lightning_modules.metrics.statistics import FeatureStatistics

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation.

    Args:
        metrics: names of metrics; None: the family's defaults.
        extractor: the feature extractor of metrics that have a choice.
        num_samples: number of images to generate.
        batch_size: images at a time on a rank.
        seed: seed of the sequence of samples.
        reference_split: split of the real images to compare with.
        reference_samples: number of real images; None: all.
        split: split of the pictures that a family makes others of; None: the held-out one.
        direction: of a translating family; None: its main one.
        occasion: selects the default metrics: see ``specs.Occasion``.
        option: the option with the metrics' names, for error messages.
    """

    metrics: tuple[str, ...] | None = None
    extractor: ExtractorName = "inception-tf"
    num_samples: int = 10_000
    batch_size: int = 64
    seed: int = 0
    reference_split: str = "train"
    reference_samples: int | None = None
    split: str | None = None
    direction: str | None = None
    occasion: Occasion = "training"
    option: str = "evaluation.metrics"


@dataclass(frozen=True)
class Pictures:
    """Selects real pictures of the data module.

    Args:
        key: the batch's key, which selects the stream.
        split: name of the split; None: the held-out one (``val``, else the last).
        limit: number of pictures, evenly spaced; None: all.
        label: class of the pictures; None: any.
    """

    key: str = "image"
    split: str | None = None
    limit: int | None = None
    label: int | None = None


class Evaluator(Protocol):
    """Interface of what measures a family.

    The driver calls, on every rank: ``load``, ``take_reference`` for each of ``references``, then for each evaluation
    ``reset``, ``begin``, ``update`` for each batch, ``compute``.
    """

    @property
    def names(self) -> Mapping[str, Direction | None]:
        """Directions of the numbers that ``compute`` returns, by full name."""
        ...

    @property
    def weights(self) -> Sequence[str]:
        """Names of the published weights that ``load`` needs (``gesso fetch`` downloads them)."""
        ...

    @property
    def num_samples(self) -> int:
        """Number of pictures that ``update`` gets in total; final after ``begin``."""
        ...

    @property
    def batch_size(self) -> int:
        """Number of pictures per ``update`` on a rank."""
        ...

    @property
    def source(self) -> Pictures | None:
        """Real pictures of which ``update`` gets batches; None: it gets sample indices only."""
        ...

    @property
    def truth(self) -> bool:
        """Whether ``update`` gets, as ``truth``, what each picture of ``source`` is to become; it needs paired data."""
        ...

    @property
    def examples(self) -> int:
        """Number of held-out samples that ``begin`` gets."""
        ...

    @property
    def references(self) -> Sequence[Pictures]:
        """Real pictures whose feature statistics it compares with."""
        ...

    @property
    def extractor(self) -> FeatureExtractor | None:
        """Extractor of the ``references``' statistics; set by ``load``."""
        ...

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """Settings of each metric that its numbers depend on; known after ``begin``."""
        ...

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """Builds the evaluator's networks from the published weights."""
        ...

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """Receives the statistics of one of ``references``."""
        ...

    def begin(self, examples: Mapping[str, Any], available: int) -> None:
        """Starts an evaluation, before the first update.

        Args:
            examples: a batch of ``examples`` held-out samples on the device; empty for 0.
            available: number of pictures in ``source``; 0 without one.
        """
        ...

    def update(self, index: Tensor, batch: Mapping[str, Any] | None) -> None:
        """Makes and measures some pictures.

        Args:
            index: int64 [N] in [0, ``num_samples``); each index comes once over all ranks and batches.
            batch: of ``source``, as in training, on the device, with the pictures as ``image``.
        """
        ...

    def compute(self) -> dict[str, float]:
        """Computes the metrics over all ranks, by full name."""
        ...

    def reset(self) -> None:
        """Removes all pictures; keeps networks and references."""
        ...


class TableEvaluator:
    """Base of this package's evaluators: selects metrics from the table, and computes those of other packages.

    Args:
        kind: kind of the measured family.
        options: of the evaluation.
        what: the family in error messages, such as ``a DCGAN``.
        abilities: what it can do.
    """

    source: Pictures | None = None
    truth = False
    examples = 0

    def __init__(
        self, kind: Kind, options: EvaluationOptions, what: str, abilities: Collection[str] = frozenset()
    ) -> None:
        asked = options.metrics
        chosen = specs.choose(kind, asked, options.occasion, what=what, option=options.option, abilities=abilities)
        self.options = options
        self.num_samples = options.num_samples
        self.batch_size = options.batch_size
        self.names = specs.full_names(chosen, options.extractor)
        self.weights = list(dict.fromkeys(asset for spec in chosen for asset in spec.needs(options.extractor)))
        self.references: Sequence[Pictures] = ()
        self.compares = any(spec.least for spec in chosen)
        #: Names of the metrics that this package computes, and the metrics of other packages.
        self.own = [spec.name for spec in chosen if spec.make is None]
        self.foreign = [spec for spec in chosen if spec.make is not None]
        self.needs_extractor = any(specs.is_chosen(spec) for spec in chosen)
        self.extractor: FeatureExtractor | None = None
        self.device = torch.device("cpu")
        self._metrics: dict[str, Metric] = {}

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        self.device = device
        name = self.options.extractor
        if self.needs_extractor:
            self.extractor = build_extractor(name, files[specs.extractor_weights(name)]).to(device)
            # Before the features of the real pictures are computed, which takes minutes.
            check_classifier(self.extractor, self.own)
        self._metrics = {spec.name: spec.make().to(device) for spec in self.foreign if spec.make is not None}

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        return {}

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """See ``Evaluator``."""
        raise NotImplementedError

    def begin(self, examples: Mapping[str, Any], available: int) -> None:
        """See ``Evaluator``."""

    def update_foreign(self, *arguments: Tensor) -> None:
        """Updates the metrics of other packages."""
        with measuring(self.device):
            for metric in self._metrics.values():
                metric.update(*arguments)

    def compute(self) -> dict[str, float]:
        """Computes the metrics of other packages."""
        found: dict[str, float] = {}
        with measuring(self.device):
            for spec in self.foreign:
                found |= _by_name(spec, self._metrics[spec.name].compute(), self.options.extractor)
        return found

    def reset(self) -> None:
        """Removes all pictures."""
        for metric in self._metrics.values():
            metric.reset()


def _by_name(spec: MetricSpec, value: Any, extractor: str) -> dict[str, float]:
    values = value if isinstance(value, Mapping) else {spec.quantities[0].name: value}
    return {spec.full_name(name, extractor): float(number) for name, number in values.items()}


class GenerationEvaluator(TableEvaluator):
    """Evaluates generated images: FID and others; and what a generator does with its latents.

    Args:
        make: maps ``update``'s arguments to images NCHW in [-1, 1].
        options: of the evaluation.
        what: the family in error messages, such as ``a DCGAN``.
        source: real pictures of which ``make`` needs batches; None: it needs indices only.
        family: the generator, which path lengths and equivariance ask for images of their own; None: there is none.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Mapping[str, Any] | None], Tensor],
        options: EvaluationOptions,
        what: str,
        source: Pictures | None = None,
        family: Probed | None = None,
    ) -> None:
        super().__init__("generation", options, what, family.abilities() if family is not None else ())
        self.make = make
        self.source = source
        if self.compares:
            self.references = (Pictures("image", options.reference_split, options.reference_samples),)
        self.family = family
        self._of_sets = [name for name in self.own if name in COMPUTED]
        self._probed = [name for name in self.own if name not in COMPUTED]
        if DIVERSITY in self._probed:
            self.examples = REAL
        self._generation: GenerationMetrics | None = None
        self._probes: Probes | None = None

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        super().load(files, device)
        if self._of_sets and not self.references:
            self._measure(None)
        if self._probed and self.family is not None:
            asked = {"num_samples": self.num_samples, "seed": self.options.seed}
            self._probes = Probes(self.family, self._probed, **asked, files=files, device=device)

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        of_sets = {} if self._generation is None else self._generation.settings
        return {**of_sets, **({} if self._probes is None else self._probes.settings)}

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """See ``Evaluator``."""
        self._measure(statistics)

    def begin(self, examples: Mapping[str, Any], available: int) -> None:
        """See ``Evaluator``."""
        if self._probes is not None:
            self._probes.begin(examples)

    def _measure(self, statistics: FeatureStatistics | None) -> None:
        assert self.extractor is not None
        metrics = GenerationMetrics(self.extractor, statistics, self._of_sets, num_samples=self.num_samples)
        self._generation = metrics.to(self.device)

    def update(self, index: Tensor, batch: Mapping[str, Any] | None) -> None:
        """See ``Evaluator``."""
        if self._probes is not None:
            self._probes.update(index)
        if not self._of_sets and not self.foreign:
            return
        images = to_uint8(self.make(index, batch))
        index = index.to(images.device)
        if self._generation is not None:
            self._generation.update(images, index)
        self.update_foreign(images, index)

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        of_sets = self._generation.compute() if self._generation is not None else {}
        probed = self._probes.compute() if self._probes is not None else {}
        return {**of_sets, **probed, **super().compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        if self._generation is not None:
            self._generation.reset()
        if self._probes is not None:
            self._probes.reset()
