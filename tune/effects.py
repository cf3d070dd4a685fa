"""What each option of a sweep moved: every metric over every option, and how strictly one rises with the other."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tune.journal import Report
from tune.space import Dimension, Space
from tune.sweep import Objective
from tune.watch import Row

#: Fewer trials say nothing.
LEAST = 5


@dataclass(frozen=True)
class Effect:
    """One metric over one option.

    Args:
        dimension: the option, a range of numbers.
        metric: its name.
        points: (trial's number, option's value, metric's value), all after as many images.
        rho: Spearman's rank correlation, in [-1, 1].
        kimg: those images, in thousands.
    """

    dimension: Dimension
    metric: str
    points: Sequence[tuple[int, float, float]]
    rho: float
    kimg: float


def effects(rows: Sequence[Row], space: Space, objectives: Sequence[Objective]) -> list[Effect]:
    """All effects, metric by metric; [] where too little is known.

    Trials are compared where all of them have been: many end early, and what trained longer is better for that alone.
    """
    measured = [row for row in rows if row.reports and row.state != "failed"]
    if len(measured) < LEAST:
        return []
    kimg = min(row.kimg for row in measured)
    reports = {row.number: [report for report in row.reports if report.kimg <= kimg][-1] for row in measured}
    found = []
    for metric in _metrics(reports.values(), objectives):
        for dimension in space:
            points = [
                (number, float(report.config[dimension.name]), report.metrics[metric])
                for number, report in reports.items()
                if dimension.bounds and dimension.name in report.config
            ]
            points = [point for point in points if math.isfinite(point[2])]
            if len({x for _, x, _ in points}) >= LEAST and len({y for *_, y in points}) > 1:
                found.append(Effect(dimension, metric, points, _spearman(points), kimg))
    return found


def _metrics(reports: Collection[Report], objectives: Sequence[Objective]) -> list[str]:
    """The objectives, and what was measured on held-out images: losses as they are, not as the sweep weighs them."""
    shared = set.intersection(*(set(report.metrics) for report in reports))
    aims = [objective.metric for objective in objectives if objective.metric in shared]
    held_out = [name for name in sorted(shared) if name.startswith("val/") and not name.endswith("_weighted")]
    return list(dict.fromkeys([*aims, *(name for name in held_out if name != "val/loss")]))


def _spearman(points: Sequence[tuple[int, float, float]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([x for _, x, _ in points], [y for *_, y in points]).statistic)
