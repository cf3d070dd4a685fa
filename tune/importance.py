"""Importance of a sweep's options: fANOVA (Hutter, Hoos and Leyton-Brown 2014), by Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tune.space import Dimension, Space
from tune.sweep import Objective
from tune.watch import Row

#: Least number of trials for an importance.
LEAST = 6


def importances(rows: Sequence[Row], space: Space, objective: Objective) -> dict[str, float]:
    """The share of a metric's variance over the trials that each option explains; {} with too few trials."""
    import optuna

    measured = [row for row in rows if math.isfinite(row.value(objective))]
    shared = [d for d in space if all(d.name in row.config for row in measured)]
    varied = [d for d in shared if len({str(row.config[d.name]) for row in measured}) > 1]
    if len(measured) < LEAST or not varied:
        return {}
    if len(varied) == 1:
        return {varied[0].name: 1.0}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if objective.mode == "min" else "maximize")
    distributions = {dimension.name: _distribution(dimension, measured) for dimension in varied}
    for row in measured:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: row.config[name] for name in distributions},
                distributions=distributions,
                value=row.value(objective),
            )
        )
    return optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def _distribution(dimension: Dimension, rows: Sequence[Row]) -> Any:
    import optuna

    if dimension.values:
        return optuna.distributions.CategoricalDistribution([_plain(value) for value in dimension.values])
    drawn = [float(row.config[dimension.name]) for row in rows]
    # PBT multiplies; a normal distribution has no bounds.
    low, high = min([*drawn, *(dimension.bounds or ())]), max([*drawn, *(dimension.bounds or ())])
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


def _plain(value: Any) -> bool | int | float | str | None:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
