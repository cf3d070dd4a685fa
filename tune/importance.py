"""Importance of a sweep's options: fANOVA (Hutter, Hoos and Leyton-Brown 2014), by Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tune.effects import alike
from tune.journal import Report
from tune.space import Dimension, Space
from tune.sweep import Objective
from tune.watch import Row

#: Least number of trials for an importance.
LEAST = 6


def importances(rows: Sequence[Row], space: Space, objective: Objective) -> dict[str, float]:
    """The share of a metric's variance over the trials that each option explains; {} with too few trials.

    Trials are compared as for ``effects``: at the length that all of them reached, and without those that failed.
    """
    import optuna

    reports = alike(rows)[1].values()
    measured = [report for report in reports if math.isfinite(report.metrics.get(objective.metric, math.nan))]
    shared = [d for d in space if all(d.name in report.config for report in measured)]
    varied = [d for d in shared if len({str(report.config[d.name]) for report in measured}) > 1]
    if len(measured) < LEAST or not varied:
        return {}
    if len(varied) == 1:
        return {varied[0].name: 1.0}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if objective.mode == "min" else "maximize")
    distributions = {dimension.name: _distribution(dimension, measured) for dimension in varied}
    for report in measured:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _plain(report.config[name]) for name in distributions},
                distributions=distributions,
                value=report.metrics[objective.metric],
            )
        )
    return optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def _distribution(dimension: Dimension, reports: Sequence[Report]) -> Any:
    import optuna

    if dimension.values:
        return optuna.distributions.CategoricalDistribution([_plain(value) for value in dimension.values])
    drawn = [float(report.config[dimension.name]) for report in reports]
    # PBT multiplies; a normal distribution has no bounds.
    low, high = min([*drawn, *(dimension.bounds or ())]), max([*drawn, *(dimension.bounds or ())])
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


def _plain(value: Any) -> bool | int | float | str | None:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
