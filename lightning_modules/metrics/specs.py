"""Table of all metrics: names, directions, ranges and charts. Imports no torch.

Training, ``gesso evaluate``, checkpoints' ``monitor``, sweeps and reports all read it. An installed package adds its
own metrics by the entry-point group ``gesso.metrics``, each a ``MetricSpec`` (or a list of them)::

    [project.entry-points."gesso.metrics"]
    sharpness = "my_package.specs:SHARPNESS"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torchmetrics import Metric

Direction = Literal["min", "max"]
#: What is measured: generated samples, stylised photographs, images translated into another domain, or images encoded
#: and decoded again.
Kind = Literal["generation", "stylization", "translation", "reconstruction"]
#: When a metric is measured by default: in validation, or by ``gesso evaluate``.
Occasion = Literal["training", "evaluate"]
#: Feature extractors: each is a network and a resize.
ExtractorName = Literal["inception-tf", "inception-clean", "mobilenet_v2"]

EXTRACTORS: tuple[ExtractorName, ...] = get_args(ExtractorName)
#: Placeholder for the name of the chosen extractor.
CHOSEN = "<extractor>"
GROUP = "gesso.metrics"

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
        least: how many made pictures, and how many real ones, it needs to compare them; 0: it compares with no set.
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
    least: int = 0
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


def _single(name: str, title: str, direction: Direction, *limits: float | None) -> tuple[Quantity, ...]:
    return (Quantity(name, title, direction, (limits[0], limits[1]) if limits else (0.0, None)),)


_BOTH: tuple[Occasion, ...] = ("training", "evaluate")

#: The metrics of this package, in the order of reports.
OWN = (
    MetricSpec(
        "fid",
        "Fréchet distance between features of made and real images (Heusel et al. 2017)",
        ("generation", "translation", "reconstruction"),
        _single("fid", "FID", "min"),
        CHOSEN,
        default=_BOTH,
        least=2,
    ),
    MetricSpec(
        "kid",
        "squared maximum mean discrepancy of features (Bińkowski et al. 2018)",
        ("generation", "translation"),
        (
            Quantity("kid", "KID", "min", (None, None)),
            Quantity("kid_std", "KID, standard deviation", None, spread_of="kid"),
        ),
        CHOSEN,
        default=_BOTH,
        least=4,
    ),
    MetricSpec(
        "is",
        "Inception Score: how sure and how diverse a classifier is (Salimans et al. 2016)",
        ("generation",),
        (
            Quantity("is", "Inception Score", "max", (1.0, None)),
            Quantity("is_std", "Inception Score, standard deviation", None, spread_of="is"),
        ),
        CHOSEN,
    ),
    MetricSpec(
        "prdc",
        "precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)",
        ("generation", "translation"),
        (
            Quantity("precision", "Precision", "max", (0.0, 1.0), chart="precision"),
            Quantity("recall", "Recall", "max", (0.0, 1.0), chart="precision"),
            Quantity("density", "Density", "max", chart="density"),
            Quantity("coverage", "Coverage", "max", (0.0, 1.0), chart="density"),
        ),
        CHOSEN,
        default=("evaluate",),
        least=6,
    ),
    MetricSpec(
        "lpips",
        "perceptual distance of content and result (Zhang et al. 2018): lower keeps more",
        ("stylization", "translation", "reconstruction"),
        _single("lpips", "LPIPS", "min"),
        "vgg16",
        weights=("vgg16_lpips",),
        default=_BOTH,
    ),
    MetricSpec(
        "ssim",
        "structural similarity of content and result on the luminance (Wang et al. 2004): higher keeps more",
        ("stylization", "translation", "reconstruction"),
        _single("ssim", "SSIM", "max", -1.0, 1.0),
        default=("evaluate",),
    ),
    MetricSpec(
        "psnr",
        "peak signal-to-noise ratio of a picture and its reconstruction, in dB: a mean over pictures",
        ("reconstruction",),
        _single("psnr", "PSNR (dB)", "max", 0.0, 100.0),
        default=_BOTH,
    ),
    MetricSpec(
        "truth_lpips",
        "perceptual distance of a translation and what it is to become, where that is known; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_lpips", "LPIPS to the truth", "min", chart="truth_lpips"),
            Quantity("copied_lpips", "LPIPS to the truth, of a copy", None, chart="truth_lpips"),
        ),
        "vgg16",
        weights=("vgg16_lpips",),
    ),
    MetricSpec(
        "truth_ssim",
        "structural similarity of a translation and what it is to become, where that is known; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_ssim", "SSIM to the truth", "max", (-1.0, 1.0), chart="truth_ssim"),
            Quantity("copied_ssim", "SSIM to the truth, of a copy", None, (-1.0, 1.0), chart="truth_ssim"),
        ),
    ),
    MetricSpec(
        "truth_psnr",
        "peak signal-to-noise ratio of a translation and what it is to become, in dB; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_psnr", "PSNR to the truth (dB)", "max", (0.0, 100.0), chart="truth_psnr"),
            Quantity("copied_psnr", "PSNR to the truth, of a copy (dB)", None, (0.0, 100.0), chart="truth_psnr"),
        ),
    ),
    MetricSpec(
        "content_cosine",
        "cosine similarity of VGG19's features of content and result: higher keeps more",
        ("stylization",),
        _single("content_cosine", "Content cosine", "max", -1.0, 1.0),
        weights=("vgg19_normalized",),
        default=("evaluate",),
    ),
    MetricSpec(
        "gram_distance",
        "distance of result's and style's Gram matrices: lower is nearer to the style",
        ("stylization",),
        _single("gram_distance", "Gram distance", "min"),
        weights=("vgg19_normalized",),
        default=_BOTH,
    ),
    MetricSpec(
        "statistics_distance",
        "distance of result's and style's feature statistics: lower is nearer to the style",
        ("stylization",),
        _single("statistics_distance", "Statistics distance", "min"),
        weights=("vgg19_normalized",),
        default=("evaluate",),
    ),
    MetricSpec(
        "artfid",
        "(1 + LPIPS) (1 + FID to the styles): content and style in one (Wright and Ommer 2022)",
        ("stylization",),
        _single("artfid", "ArtFID", "min", 1.0, None),
        CHOSEN,
        weights=("vgg16_lpips",),
    ),
)


@cache
def table() -> Mapping[str, MetricSpec]:
    """All metrics by name: this package's, then those of installed packages in the order of their names.

    Raises:
        ValueError: a package's entry is no ``MetricSpec``, or takes a name that is taken.
    """
    found = {spec.name: spec for spec in OWN}
    logged = {quantity.name for spec in OWN for quantity in spec.quantities}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        loaded = entry.load()
        for spec in loaded if isinstance(loaded, list | tuple) else [loaded]:
            if not isinstance(spec, MetricSpec):
                raise ValueError(f"entry point {entry.name} of {GROUP}: {entry.value} is no MetricSpec")
            names = {quantity.name for quantity in spec.quantities}
            if spec.name in found or names & logged:
                raise ValueError(f"entry point {entry.name} of {GROUP}: a metric {spec.name} exists already")
            found[spec.name] = spec
            logged |= names
    return found


def find(name: str) -> MetricSpec:
    """Finds a metric by name.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name not in table():
        raise ValueError(f"no metric {name!r}; there are {', '.join(table())}")
    return table()[name]


def of_kind(kind: Kind) -> list[MetricSpec]:
    """Metrics that can be measured of this kind of family."""
    return [spec for spec in table().values() if kind in spec.kinds]


def choose(kind: Kind, names: Iterable[str] | None, occasion: Occasion, *, what: str, option: str) -> list[MetricSpec]:
    """The metrics to measure: those named, or the defaults of this kind of family.

    Args:
        kind: kind of the family to measure.
        names: names of metrics; None: the defaults for this ``occasion``.
        occasion: see ``Occasion``.
        what: the family in error messages, such as ``a DCGAN``.
        option: the option with the names, for error messages.

    Raises:
        ValueError: a name that is not in the table, or not of this kind.
    """
    known = of_kind(kind)
    if names is None:
        return [spec for spec in known if occasion in spec.default]
    chosen = [find(name) for name in names]
    if foreign := [spec.name for spec in chosen if kind not in spec.kinds]:
        raise ValueError(
            f"{option}: {', '.join(sorted(foreign))} cannot be measured of {what}; "
            f"choose from {', '.join(spec.name for spec in known)}"
        )
    return chosen


def full_names(specs: Sequence[MetricSpec], extractor: str) -> dict[str, Direction | None]:
    """Directions of all quantities of these metrics, by full name."""
    return {name: direction for spec in specs for name, direction in spec.names(extractor).items()}


def quantity(name: str) -> tuple[MetricSpec, Quantity] | None:
    """Metric and quantity of a full name such as ``kid/inception-tf``; None: it is no metric's."""
    return _quantities().get(name.partition("/")[0])


def extractor_weights(extractor: str) -> str:
    """Name of the published weights of an extractor."""
    return _EXTRACTOR_WEIGHTS[extractor]


def is_chosen(spec: MetricSpec) -> bool:
    """Whether the metric uses the chosen extractor."""
    return spec.network == CHOSEN


@cache
def _quantities() -> Mapping[str, tuple[MetricSpec, Quantity]]:
    return {quantity.name: (spec, quantity) for spec in table().values() for quantity in spec.quantities}


def better(
    name: str, mode: Direction | None, *, option: str, known: Mapping[str, Direction | None] | None = None
) -> Direction:
    """Direction in which a logged number gets better: ``mode`` if given, else the metric's own direction.

    Losses on held-out images (``val/...``) default to ``min``.

    Args:
        name: the full name, such as ``ssim``, ``fid/inception-tf`` or ``val/kl``.
        mode: the direction asked for; None: the metric's own.
        option: the option with ``mode``, for error messages.
        known: directions by full name, from an evaluator; they override the table's.

    Raises:
        ValueError: ``mode`` contradicts the metric, or a number without a direction (a spread) has no ``mode``.
    """
    found = quantity(name)
    own = (known or {}).get(name) or (found[1].direction if found else None) or _OTHERS.get(name)
    if own is not None and mode not in (None, own):
        words = {"min": "less", "max": "more"}
        raise ValueError(f"{option} {mode}: of {name} {words[own]} is better; leave {option} out")
    if own is None and mode is None and not name.startswith("val/"):
        raise ValueError(f"neither less nor more of {name} is better: name another metric, or set {option}")
    return own or mode or "min"


#: Directions of other logged numbers.
_OTHERS: dict[str, Direction] = {"images_per_second": "max"}
