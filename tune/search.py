"""Ray Tune's searchers and schedulers for a sweep: where configurations come from, and which trials go on."""

from __future__ import annotations

import math
import random
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator

from tune.space import Dimension, Space
from tune.sweep import Sweep

#: PBT's factors: quantiles of a log-normal distribution. Two of them (1.2 and 0.8, as in the paper) leave gaps that a
#: small population never closes; so many found a planted optimum within 5 % twice as often.
FACTORS = tuple(math.exp(0.2 * NormalDist().inv_cdf((k + 0.5) / 32)) for k in range(32))
#: Time that all schedulers count in.
TIME = "kimg"


def searcher(sweep: Sweep, space: Space) -> Any:
    """Random draws and grids, or TPE: of one objective, or of several for their Pareto front."""
    if sweep.search == "random":
        return BasicVariantGenerator(random_state=sweep.seed, max_concurrent=sweep.concurrent or 0)
    from optuna.logging import WARNING, set_verbosity
    from optuna.samplers import TPESampler
    from ray.tune.search.optuna import OptunaSearch

    set_verbosity(WARNING)
    several = len(sweep.objectives) > 1
    metrics, modes = zip(*((objective.metric, objective.mode) for objective in sweep.objectives), strict=True)
    search = OptunaSearch(
        OptunaSearch.convert_search_space(space.domains()),
        metric=list(metrics) if several else metrics[0],
        mode=list(modes) if several else modes[0],
        # Multivariate: loss weights matter by their ratios. Constant liar: trials that run at once must differ.
        sampler=TPESampler(seed=sweep.seed, multivariate=True, constant_liar=True, n_startup_trials=_startup(sweep)),
    )
    return ConcurrencyLimiter(search, sweep.concurrent) if sweep.concurrent else search


def _startup(sweep: Sweep) -> int:
    """Random trials before TPE draws its first: a quarter of them, 10 at most."""
    return max(2, min(10, sweep.num_samples // 4))


def scheduler(sweep: Sweep, space: Space) -> TrialScheduler:
    """The scheduler, on images seen."""
    if sweep.scheduler == "none":
        return FIFOScheduler()
    (objective,) = sweep.objectives
    aim: dict[str, Any] = {"metric": objective.metric, "mode": objective.mode}
    if sweep.scheduler == "asha":
        lengths: dict[str, Any] = {"max_t": sweep.kimg, "grace_period": sweep.grace_kimg}
        return ASHAScheduler(time_attr=TIME, reduction_factor=sweep.reduction, **lengths, **aim)
    if sweep.scheduler == "median":
        return MedianStoppingRule(time_attr=TIME, grace_period=sweep.grace_kimg, min_samples_required=3, **aim)
    # Ray draws from these when it copies and changes.
    random.seed(sweep.seed)
    np.random.seed(sweep.seed)  # noqa: NPY002
    mutable = [dimension for dimension in space if dimension.mutate]
    if sweep.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=sweep.perturb_kimg,
            hyperparam_mutations={d.name: list(d.values) if d.values else d.domain for d in mutable},
            resample_probability=0.1,
            # Any number of them will do.
            perturbation_factors=FACTORS,  # type: ignore[arg-type]
            custom_explore_fn=partial(within, space),
            log_config=True,
            **aim,
        )
    from ray.tune.schedulers.pb2 import PB2

    return PB2(
        time_attr=TIME,
        perturbation_interval=sweep.perturb_kimg,
        hyperparam_bounds={d.name: list(d.bounds) for d in mutable if d.bounds},
        log_config=True,
        **aim,
    )


def within(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that PBT has multiplied by its factors, back inside of the space."""
    return {name: _within(space[name], value) for name, value in config.items()}


def _within(dimension: Dimension, value: Any) -> Any:
    if dimension.bounds is None:
        return value
    low, high = dimension.bounds
    inside = min(max(value, low), high)
    return round(inside) if isinstance(low, int) else float(inside)
