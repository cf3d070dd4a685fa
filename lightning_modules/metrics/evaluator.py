"""What measures a family: names and directions, what it wants to see, and how it is fed. One driver runs them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from lightning_modules.metrics import specs
from lightning_modules.metrics.features import FeatureExtractor, build_extractor
from lightning_modules.metrics.generation import GenerationMetrics
from lightning_modules.metrics.specs import Direction, ExtractorName, Kind, MetricSpec, Occasion
from lightning_modules.metrics.statistics import FeatureStatistics

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True)
class EvaluationOptions:
    """How a family is to be measured.

    Args:
        metrics: by name; None: the family's own.
        extractor: the feature network of those metrics that let one choose.
        num_samples: how many pictures are made.
        batch_size: of them at a time on a rank.
        seed: which infinite sequence of samples.
        reference_split: split of the real images to compare with.
        reference_samples: only so many of them; None: all.
        direction: in which a translating family is measured; None: its main one.
        occasion: which metrics are the family's own: see ``specs.Occasion``.
        option: that named the metrics, for errors.
    """

    metrics: tuple[str, ...] | None = None
    extractor: ExtractorName = "inception-tf"
    num_samples: int = 10_000
    batch_size: int = 64
    seed: int = 0
    reference_split: str = "train"
    reference_samples: int | None = None
    direction: str | None = None
    occasion: Occasion = "training"
    option: str = "evaluation.metrics"


@dataclass(frozen=True)
class Pictures:
    """Real pictures of the data module.

    Args:
        key: the batch's key, which tells the stream.
        split: None: the held-out one (``val``, or the last there is).
        limit: only so many, evenly spaced; None: all.
    """

    key: str = "image"
    split: str | None = None
    limit: int | None = None


class Evaluator(Protocol):
    """Measures a family. The driver calls, on every rank alike: ``load``, ``take_reference`` for each of
    ``references``, then for each evaluation ``reset``, ``begin``, many times ``update``, ``compute``."""

    @property
    def names(self) -> Mapping[str, Direction | None]:
        """Full names of what ``compute`` returns, and which way is better."""
        ...

    @property
    def weights(self) -> Sequence[str]:
        """Published weights that ``load`` wants (``gesso fetch`` has them)."""
        ...

    @property
    def num_samples(self) -> int:
        """How many pictures ``update`` sees in all; after ``begin`` for certain."""
        ...

    @property
    def batch_size(self) -> int:
        """How many of them at a time on a rank."""
        ...

    @property
    def source(self) -> Pictures | None:
        """Of which ``update`` wants batches; None: it wants sample indices alone."""
        ...

    @property
    def examples(self) -> int:
        """How many held-out samples ``begin`` wants."""
        ...

    @property
    def references(self) -> Sequence[Pictures]:
        """Real pictures whose feature statistics it compares with."""
        ...

    @property
    def extractor(self) -> FeatureExtractor | None:
        """That of the ``references``' statistics; there after ``load``."""
        ...

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """What the numbers rest on beside the pictures, by metric; there after ``begin``."""
        ...

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """Builds its networks from the published weights."""
        ...

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """Hands over the statistics of one of ``references``."""
        ...

    def begin(self, examples: Mapping[str, Any], available: int) -> None:
        """Before the first update.

        Args:
            examples: a batch of ``examples`` held-out samples on the device; empty for 0.
            available: how many pictures ``source`` has; 0 without one.
        """
        ...

    def update(self, index: Tensor, batch: Mapping[str, Any] | None) -> None:
        """Makes and measures some pictures.

        Args:
            index: int64 [N], which of the ``num_samples`` they are; each comes once over all ranks and batches.
            batch: of ``source``, in training's format on the device, its pictures under ``image``.
        """
        ...

    def compute(self) -> dict[str, float]:
        """The metrics by full name, over all ranks."""
        ...

    def reset(self) -> None:
        """Forgets all pictures; keeps networks and references."""
        ...


class TableEvaluator:
    """Base of this package's evaluators: chooses from the table of metrics, and computes those of other packages.

    Args:
        kind: of what is measured.
        options: how.
        what: the family, for errors.
    """

    source: Pictures | None = None
    examples = 0

    def __init__(self, kind: Kind, options: EvaluationOptions, what: str) -> None:
        chosen = specs.choose(kind, options.metrics, options.occasion, what=what, option=options.option)
        self.options = options
        self.num_samples = options.num_samples
        self.batch_size = options.batch_size
        self.names = specs.full_names(chosen, options.extractor)
        self.weights = list(dict.fromkeys(asset for spec in chosen for asset in spec.needs(options.extractor)))
        self.references: Sequence[Pictures] = ()
        #: The metrics that this package computes, by name, and those that come with what computes them.
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
        """Feeds the metrics of other packages."""
        for metric in self._metrics.values():
            metric.update(*arguments)

    def compute(self) -> dict[str, float]:
        """The metrics of other packages."""
        found: dict[str, float] = {}
        for spec in self.foreign:
            found |= _by_name(spec, self._metrics[spec.name].compute(), self.options.extractor)
        return found

    def reset(self) -> None:
        """Forgets all pictures."""
        for metric in self._metrics.values():
            metric.reset()


def _by_name(spec: MetricSpec, value: Any, extractor: str) -> dict[str, float]:
    values = value if isinstance(value, Mapping) else {spec.quantities[0].name: value}
    return {spec.full_name(name, extractor): float(number) for name, number in values.items()}


class GenerationEvaluator(TableEvaluator):
    """FID and the others of what ``make`` makes.

    Args:
        make: maps ``update``'s arguments to pictures NCHW in [-1, 1].
        options: how to measure.
        what: the family, for errors.
        source: of which ``make`` wants batches; None: it wants indices alone.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Mapping[str, Any] | None], Tensor],
        options: EvaluationOptions,
        what: str,
        source: Pictures | None = None,
    ) -> None:
        super().__init__("generation", options, what)
        self.make = make
        self.source = source
        if self.own:
            self.references = (Pictures("image", options.reference_split, options.reference_samples),)
        self._generation: GenerationMetrics | None = None

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        return {} if self._generation is None else self._generation.settings

    def take_reference(self, pictures: Pictures, statistics: FeatureStatistics) -> None:
        """See ``Evaluator``."""
        assert self.extractor is not None
        metrics = GenerationMetrics(self.extractor, statistics, self.own, num_samples=self.num_samples)
        self._generation = metrics.to(self.device)

    def update(self, index: Tensor, batch: Mapping[str, Any] | None) -> None:
        """See ``Evaluator``."""
        images = to_uint8(self.make(index, batch))
        index = index.to(images.device)
        if self._generation is not None:
            self._generation.update(images, index)
        self.update_foreign(images, index)

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        return {**(self._generation.compute() if self._generation is not None else {}), **super().compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        if self._generation is not None:
            self._generation.reset()
