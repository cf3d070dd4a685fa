"""The effect of each option of a sweep: every metric over every option, with their rank correlation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tune.journal import Report
from tune.space import Dimension, Space
from tune.sweep import Objective
from tune.watch import Row

#: Least number of trials for an effect.
LEAST = 5


@dataclass(frozen=True)
class Effect:
    """One metric over one option.

    Args:
        dimension: the option, a range of numbers.
        metric: the metric's name.
        points: (trial's number, option's value, metric's value), all after the same number of images.
        rho: Spearman's rank correlation, in [-1, 1].
        kimg: that number of images, in thousands.
    """

    dimension: Dimension
    metric: str
    points: Sequence[tuple[int, float, float]]
    rho: float
    kimg: float


def effects(rows: Sequence[Row], space: Space, objectives: Sequence[Objective]) -> list[Effect]:
    """All effects, metric by metric; [] with too few trials.

    Trials are compared at the length that all of them reached: many end early, and longer training alone is better.
    """
    kimg, reports = alike(rows)
    if len(reports) < LEAST:
        return []
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


def alike(rows: Sequence[Row]) -> tuple[float, dict[int, Report]]:
    """The length in kimg that all trials reached, and each one's last report up to it, by number; none of failed ones.

    With batches of several sizes, the first report of some may come after the only one of others: they are left out.
    """
    measured = [row for row in rows if row.reports and row.state != "failed"]
    kimg = min((row.kimg for row in measured), default=0.0)
    until = {row.number: [report for report in row.reports if report.kimg <= kimg] for row in measured}
    return kimg, {number: some[-1] for number, some in until.items() if some}


def _metrics(reports: Collection[Report], objectives: Sequence[Objective]) -> list[str]:
    """Names of the objectives and of the held-out losses, without the weighted ones, since the sweep varies weights."""
    shared = set.intersection(*(set(report.metrics) for report in reports))
    aims = [objective.metric for objective in objectives if objective.metric in shared]
    held_out = [name for name in sorted(shared) if name.startswith("val/") and not name.endswith("_weighted")]
    return list(dict.fromkeys([*aims, *(name for name in held_out if name != "val/loss")]))


def _spearman(points: Sequence[tuple[int, float, float]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([x for _, x, _ in points], [y for *_, y in points]).statistic)
