"""What the table of metrics consists of. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torchmetrics import Metric

Direction = Literal["min", "max"]
#: What is measured: generated samples, stylised photographs, images translated into another domain, images encoded
#: and decoded again, or images encoded into vectors.
Kind = Literal["generation", "stylization", "translation", "reconstruction", "embedding"]
#: When a metric is measured by default: in validation, or by ``gesso evaluate``.
Occasion = Literal["training", "evaluate"]
#: Feature extractors: each is a network and a resize.
ExtractorName = Literal["inception-tf", "inception-clean", "mobilenet_v2"]

EXTRACTORS: tuple[ExtractorName, ...] = get_args(ExtractorName)
#: Placeholder for the name of the chosen extractor.
CHOSEN = "<extractor>"

_EXTRACTOR_WEIGHTS: dict[str, str] = {
    "inception-tf": "inception",
    "inception-clean": "inception",
    "mobilenet_v2": "mobilenet_v2",
}


@dataclass(frozen=True)
class Quantity:
    """One number that a metric logs.

    Args:
        name: first part of its full name: ``kid``.
        title: of its chart in a report.
        direction: which way is better; None: neither (a standard deviation).
        range: smallest and largest possible value; None: no bound.
        chart: quantities of one chart share this; default: a chart of its own.
        axis: of the chart's values.
        spread_of: the quantity whose standard deviation this is.
    """

    name: str
    title: str
    direction: Direction | None
    range: tuple[float | None, float | None] = (0.0, None)
    chart: str = ""
    axis: Literal["linear", "log"] = "linear"
    spread_of: str | None = None


@dataclass(frozen=True)
class MetricSpec:
    """A metric and the quantities that it logs.

    Args:
        name: in options: ``prdc``.
        about: description in one line.
        kinds: kinds of family of which it can be measured.
        quantities: the numbers that it logs.
        network: second part of the full names, after the slash: ``CHOSEN`` for the extractor of the evaluation, a
            network's name, or None for no suffix.
        weights: published weights that it needs besides those of the chosen extractor.
        default: when it is measured by default.
        abilities: what a family must be able to do besides (``core.abilities.Ability``): a latent space to follow ...
        least: how many made pictures, and how many real ones, it needs to compare them; 0: it compares with no set.
        factors: whether it needs pictures whose captions tell their factors: ``shape=0 scale=3``.
        make: builds the ``torchmetrics.Metric`` that computes it, for metrics of other packages; import torch inside.
            Its ``update`` takes, as uint8 [N, C, H, W]: for generation ``(images, index)``; for stylization
            ``(contents, stylized, styles)``; for translation and reconstruction ``(sources, made)``.
            Its ``compute`` returns a number, or a mapping from the quantities' names to numbers.
    """

    name: str
    about: str
    kinds: tuple[Kind, ...]
    quantities: tuple[Quantity, ...]
    network: str | None = None
    weights: tuple[str, ...] = ()
    default: tuple[Occasion, ...] = ()
    abilities: tuple[str, ...] = ()
    least: int = 0
    factors: bool = False
    make: Callable[[], Metric] | None = None

    def names(self, extractor: str) -> dict[str, Direction | None]:
        """Directions of its quantities by full name, such as ``kid/inception-tf``."""
        return {self.full_name(quantity.name, extractor): quantity.direction for quantity in self.quantities}

    def full_name(self, quantity: str, extractor: str) -> str:
        """Full name of one of its quantities, as it is logged."""
        network = extractor if self.network == CHOSEN else self.network
        return f"{quantity}/{network}" if network else quantity

    def needs(self, extractor: str) -> tuple[str, ...]:
        """Names of the published weights that it needs."""
        return (*self.weights, *([extractor_weights(extractor)] if self.network == CHOSEN else []))


def extractor_weights(extractor: str) -> str:
    """Name of the published weights of an extractor."""
    return _EXTRACTOR_WEIGHTS[extractor]
