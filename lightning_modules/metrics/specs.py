"""Table of all metrics: names, directions, ranges and charts. Imports no torch.

Training, ``gesso evaluate``, checkpoints' ``monitor``, sweeps and reports all read it. An installed package adds its
own metrics by the entry-point group ``gesso.metrics``, each a ``MetricSpec`` (or a list of them)::

    [project.entry-points."gesso.metrics"]
    sharpness = "my_package.specs:SHARPNESS"
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points

from lightning_modules.metrics.own_specs import OWN
from lightning_modules.metrics.spec_types import (
    CHOSEN,
    EXTRACTORS,
    Direction,
    ExtractorName,
    Kind,
    MetricSpec,
    Occasion,
    Quantity,
    extractor_weights,
)

__all__ = [
    "CHOSEN",
    "EXTRACTORS",
    "GROUP",
    "OWN",
    "Direction",
    "ExtractorName",
    "Kind",
    "MetricSpec",
    "Occasion",
    "Quantity",
    "better",
    "choose",
    "extractor_weights",
    "find",
    "full_names",
    "is_chosen",
    "of_kind",
    "quantity",
    "table",
]

GROUP = "gesso.metrics"


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


def choose(
    kind: Kind,
    names: Iterable[str] | None,
    occasion: Occasion,
    *,
    what: str,
    option: str,
    abilities: Collection[str] = (),
) -> list[MetricSpec]:
    """The metrics to measure: those named, or the defaults of this kind of family.

    Args:
        kind: kind of the family to measure.
        names: names of metrics; None: the defaults for this ``occasion``.
        occasion: see ``Occasion``.
        what: the family in error messages, such as ``a DCGAN``.
        option: the option with the names, for error messages.
        abilities: what the family can do.

    Raises:
        ValueError: a name that is not in the table, not of this kind, or of what the family cannot do.
    """
    known = [spec for spec in of_kind(kind) if set(spec.abilities) <= set(abilities)]
    if names is None:
        return [spec for spec in known if occasion in spec.default]
    chosen = [find(name) for name in names]
    if foreign := [spec.name for spec in chosen if spec not in known]:
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
