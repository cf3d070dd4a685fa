"""Reads a run folder for the report; every part of it may be missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launch.report.pieces import is_number, mapping, pictures_of
from launch.runs.folder import RunFolder
from launch.runs.metrics import read_rows
from lightning_modules.metrics import specs
from lightning_modules.metrics.specs import MetricSpec, Quantity

T = TypeVar("T")

#: (kimg, value) in rising order of kimg.
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Metric:
    """One evaluation metric over the run.

    Args:
        spec: the metric, of the table of all metrics.
        quantity: which of its numbers: ``kid``, ``precision`` ...
        network: the feature network, without which the number means nothing; empty where there is no choice.
        samples: how many images were generated for it; None if that was not logged.
        against: the real pictures that it compares with, in words; empty where it compares with none.
        settings: what else its numbers depend on, in words: ``subsets 100, subset size 6``.
        points: its values.
        spread: its standard deviations, where it has any.
    """

    spec: MetricSpec
    quantity: Quantity
    network: str
    samples: int | None
    against: str
    settings: str
    points: Points
    spread: Points

    @property
    def name(self) -> str:
        return self.quantity.title

    @property
    def qualifier(self) -> str:
        """The conditions of the measurement: ``mobilenet_v2, 1,000 samples against 60,000 of mnist, train``."""
        samples = f"{self.samples:,} samples" if self.samples is not None else ""
        compared = " against ".join(filter(None, [samples, self.against]))
        return ", ".join(filter(None, [self.network, compared, self.settings]))

    @property
    def best(self) -> tuple[float, float] | None:
        """(kimg, value), or None when no value is finite, or neither way is better."""
        if self.quantity.direction is None:
            return None
        sign = 1 if self.quantity.direction == "min" else -1
        return min(finite(self.points), key=lambda point: sign * point[1], default=None)

    def before(self, kimg: float) -> tuple[float, float] | None:
        """(kimg, value) of the last measurement up to ``kimg``."""
        return next((point for point in reversed(self.points) if point[0] <= kimg), None)


@dataclass(frozen=True)
class Record:
    """A run, as far as its folder describes it.

    Args:
        path: the run folder.
        info: run.json.
        config: the text of config.yaml.
        series: logged name -> its points.
        pictures: preview's name (``samples``, ``interpolation`` ...) -> (kimg, PNG file) in rising order.
        evaluations: what ``gesso evaluate`` found, the latest checkpoint last.
        resumable: whether there is a checkpoint to go on from.
    """

    path: Path
    info: dict[str, Any]
    config: str
    series: dict[str, Points]
    pictures: dict[str, list[tuple[float, Path]]]
    evaluations: list[dict[str, Any]]
    resumable: bool

    @property
    def name(self) -> str:
        return str(self.info.get("name") or self.path.resolve().name)

    @property
    def state(self) -> str:
        return str(self.info.get("state") or "unknown")

    @property
    def compared_with(self) -> str:
        """The real pictures that the run's own scores compare with, in words; empty if it is not known."""
        known = self.info.get("compared_with")
        return "; ".join(pictures_of(mapping(reference)) for reference in known) if isinstance(known, list) else ""

    def metrics(self) -> list[Metric]:
        """The evaluation metrics, in the order of the table: FID first."""
        samples = finite(self.series.get("evaluation/samples", []))
        found = []
        for name, points in self.series.items():
            if (known := measured(name)) is None:
                continue
            spec, quantity = known
            network = name.partition("/")[2]
            spread = next((self.series[other] for other in spreads_of(name) if other in self.series), [])
            number = int(samples[-1][1]) if samples else None
            against = self.compared_with if spec.least else ""
            settings = join_words(
                settings_in_words(self.info.get("evaluation_settings"), spec),
                sampling_in_words(self.info.get("sampling")),
            )
            found.append(Metric(spec, quantity, network, number, against, settings, points, spread))
        order = [quantity.name for spec in specs.table().values() for quantity in spec.quantities]

        def place(metric: Metric) -> tuple[str, int]:
            return metric.network if specs.is_chosen(metric.spec) else "", order.index(metric.quantity.name)

        return sorted(found, key=place)


def measured(name: str) -> tuple[MetricSpec, Quantity] | None:
    """The metric of a logged name such as ``kid/inception-tf``; None if it is no metric, or a metric's spread."""
    known = specs.quantity(name)
    if known is None or known[1].spread_of is not None or bool(known[0].network) != ("/" in name):
        return None
    return known


def settings_in_words(settings: object, spec: MetricSpec) -> str:
    """What a metric's numbers depend on, such as ``subsets 100, subset size 6``; empty where there is nothing.

    Args:
        settings: of each metric, by its name, as files have them.
        spec: the metric.
    """
    own = mapping(mapping(settings).get(spec.name))
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in own.items() if is_number(value))


def sampling_in_words(sampling: object) -> str:
    """How samples were made, such as ``heun, 18 steps, 35 evaluations``; empty where there is nothing.

    Args:
        sampling: ``Abilities.sampled``, as files have it.
    """
    facts = mapping(sampling)
    first = [str(facts["sampler"])] if isinstance(facts.get("sampler"), str) else []
    counts = [f"{facts[name]:,} {name}" for name in ("steps", "evaluations") if is_number(facts.get(name))]
    others = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in facts.items()
        if name not in ("sampler", "steps", "evaluations") and is_number(value)
    ]
    return ", ".join(first + counts + others)


def join_words(*parts: str) -> str:
    """The parts that are not empty, with commas between them."""
    return ", ".join(filter(None, parts))


def spreads_of(name: str) -> list[str]:
    """Names under which the standard deviation of a logged metric may be found."""
    key, slash, network = name.partition("/")
    known = specs.quantity(name)
    spreads = [q.name for q in known[0].quantities if q.spread_of == key] if known else []
    return [f"{spread}{slash}{network}" for spread in spreads]


def read_record(run: Path) -> Record:
    """Reads a run folder.

    Raises:
        FileNotFoundError: this is no run folder.
        ValueError: a file in it is damaged.
    """
    folder = RunFolder(run)
    if not any(path.exists() for path in (folder.config, folder.path / "run.json", folder.metrics)):
        raise FileNotFoundError(f"{run}: no run here; `gesso fit` makes runs under runs/")
    info = folder.info()
    return Record(
        path=run,
        info=info,
        config=folder.config.read_text(errors="replace") if folder.config.is_file() else "",
        series=read_metrics(folder.metrics) if folder.metrics.is_file() else {},
        pictures=find_pictures(folder.samples),
        evaluations=read_evaluations(run / "evaluations"),
        resumable=folder.last_checkpoint is not None,
    )


def read_metrics(file: Path) -> dict[str, Points]:
    """Logged name -> points, from ``images_seen,seconds,name,value``.

    Runs of earlier versions, when they were resumed, logged again what had come after the checkpoint: the images seen
    fall there, and what was logged from there on never happened.
    """
    series: dict[str, Points] = {}
    latest = 0.0
    for images_seen, _, name, value in read_rows(file):
        kimg = images_seen / 1000
        if kimg < latest:
            series = {key: [point for point in points if point[0] < kimg] for key, points in series.items()}
        latest = kimg
        points = series.setdefault(name, [])
        if points and points[-1][0] == kimg:
            points.pop()
        points.append((kimg, value))
    return {name: points for name, points in series.items() if points}


def find_pictures(folder: Path) -> dict[str, list[tuple[float, Path]]]:
    """The previews in ``samples/``: ``000000050000.png`` is of ``samples`` at 50 kimg; other names come before that."""
    found: dict[str, list[tuple[float, Path]]] = {}
    for file in folder.glob("*.png"):
        if match := re.fullmatch(r"(?:(.+)-)?(\d+)\.png", file.name):
            found.setdefault(match[1] or "samples", []).append((int(match[2]) / 1000, file))
    first = ["samples", "real"]
    names = sorted(found, key=lambda name: (first.index(name) if name in first else len(first), name))
    return {name: sorted(found[name]) for name in names}


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The results of ``gesso evaluate``; a damaged one is left out."""
    results = []
    for file in sorted(folder.glob("*.json")):
        try:
            result = json.loads(file.read_text())
        except ValueError:
            continue
        if isinstance(result, dict):
            results.append(result)
    return results


def finite(points: Points) -> Points:
    """The points whose value is a finite number."""
    return [point for point in points if math.isfinite(point[1])]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` (2 or more) of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]
