"""Ray Tune's schedulers, which decide whether trials continue; after a stop they recall the sweep's earlier reports."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from gesso.common.extras import needing
from tune.asha import Asha
from tune.journal import TIME, Report
from tune.search import Search
from tune.space import Dimension, Space
from tune.sweep import Sweep
from tune.trials import Trials

with needing("tune"):
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import (
        FIFOScheduler,
        MedianStoppingRule,
        PopulationBasedTraining,
        TrialScheduler,
    )
    from ray.tune.schedulers.pb2 import PB2

#: PBT's factors: quantiles of two log-normal distributions, one to search with (30 %) and one to settle with (5 %). Two
#: factors (1.2 and 0.8, as in the paper) leave gaps that a small population never closes: 8 trials found a planted
#: optimum within 5 % in 25 % of 200 simulated sweeps of 20 intervals; with these in 75 %, of 40 intervals in 97 %.
FACTORS = tuple(math.exp((0.05 if k % 2 else 0.3) * NormalDist().inv_cdf((k + 0.5) / 32)) for k in range(32))


def scheduler(sweep: Sweep, search: Search) -> TrialScheduler:
    """Makes a sweep's scheduler, which measures time in images seen.

    Args:
        sweep: the sweep.
        search: the source of its trials.
    """
    if sweep.scheduler == "none":
        return FIFOScheduler()
    if sweep.scheduler == "asha":
        return Asha(sweep, search)
    (objective,) = sweep.objectives
    aim: dict[str, Any] = {"time_attr": TIME, "metric": objective.metric, "mode": objective.mode}
    if sweep.scheduler == "median":
        return Median(sweep, grace_period=sweep.grace_kimg, min_samples_required=3, **aim)
    # Ray draws from these when it copies and changes weights.
    random.seed(sweep.seed)
    np.random.seed(sweep.seed)  # noqa: NPY002
    mutable = [dimension for dimension in sweep.space if dimension.mutate]
    aim |= {"perturbation_interval": sweep.perturb_kimg, "log_config": False}
    if sweep.scheduler == "pbt":
        return Pbt(
            sweep,
            hyperparam_mutations={d.name: list(d.values) if d.values else d.domain for d in mutable},
            resample_probability=0.1,
            perturbation_factors=FACTORS,
            custom_explore_fn=partial(within, sweep.space),
            **aim,
        )
    return Pb2(sweep, hyperparam_bounds={d.name: list(d.bounds) for d in mutable if d.bounds}, **aim)


class Median(MedianStoppingRule):
    """The median stopping rule: stops trials whose best value is worse than the median of the others' averages."""

    def __init__(self, sweep: Sweep, **options: Any) -> None:
        super().__init__(**options)
        self._trials = Trials(sweep)
        for trial in self._trials.read():
            if trial.end:
                self._recall(Trial("trial", trial_id=trial.id, stub=True), self._trials.journal(trial.id).read())

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        # The trial itself repeats its last report, since it is unknown whether the scheduler had decided on it.
        self._recall(trial, self._trials.journal(trial.trial_id).read()[:-1])

    def _recall(self, trial: Trial, reports: Sequence[Report]) -> None:
        for report in reports:
            # This rule takes a completion as one more value, without a decision.
            self.on_trial_complete(None, trial, report.result)  # type: ignore[arg-type]


class _Timed:
    """Mixin: a population scheduler counts its intervals on from a trial's last report after a stop."""

    def __init__(self, sweep: Sweep, **options: Any) -> None:
        super().__init__(**options)
        self._space = sweep.space
        self._trials = Trials(sweep)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        interval: float = self._perturbation_interval  # type: ignore[attr-defined]
        for report in self._trials.journal(trial.trial_id).read()[-1:]:
            state = self._trial_state[trial]  # type: ignore[attr-defined]
            state.last_perturbation_time = report.kimg // interval * interval


class Pbt(_Timed, PopulationBasedTraining):
    """Population based training."""


class Pb2(_Timed, PB2):
    """Population based bandits."""

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict, dict]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        # PB2 computes in single precision, and may exceed the bounds in the last digit.
        return within(self._space, config), operations


def within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """Clips a configuration that PBT changed to the bounds of the space."""
    return {name: _within(space[name], value) for name, value in config.items()}


def _within(dimension: Dimension, value: Any) -> Any:
    if dimension.bounds is None:
        return value
    low, high = dimension.bounds
    inside = min(max(value, low), high)
    return round(inside) if isinstance(low, int) else float(inside)
