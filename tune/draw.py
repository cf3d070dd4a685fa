"""Draws configurations from a grid, at random, or with Optuna's TPE.

A configuration is a function of the sweep and its earlier trials, so a stopped sweep continues exactly with no further
state.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tune.space import Dimension
from tune.sweep import Sweep
from tune.trials import Drawn, Trials


def count(sweep: Sweep) -> int:
    """The number of a sweep's trials: ``num_samples``, times the size of its grid if it has one."""
    return sweep.num_samples * math.prod(len(dimension.values) for dimension in _grid(sweep))


def draw(sweep: Sweep, past: Sequence[Drawn]) -> dict[str, Any]:
    """Draws the configuration of the trial that follows ``past``; the first is the baseline, where there is one."""
    if not past and sweep.baseline is not None:
        return dict(sweep.baseline)
    seed = np.random.SeedSequence([sweep.seed, len(past)])
    return _tpe(sweep, past, seed) if sweep.search == "tpe" else _chance(sweep, len(past), seed)


def _grid(sweep: Sweep) -> list[Dimension]:
    return [dimension for dimension in sweep.space if dimension.is_grid]


def _chance(sweep: Sweep, number: int, seed: np.random.SeedSequence) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    grid = _grid(sweep)
    cells = list(itertools.product(*(dimension.values for dimension in grid)))
    cell = dict(zip((dimension.name for dimension in grid), cells[number % len(cells)], strict=True))
    return {
        dimension.name: cell[dimension.name] if dimension.is_grid else dimension.domain.sample(random_state=generator)
        for dimension in sweep.space
    }


def _tpe(sweep: Sweep, past: Sequence[Drawn], seed: np.random.SeedSequence) -> dict[str, Any]:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["minimize" if objective.mode == "min" else "maximize" for objective in sweep.objectives],
        sampler=optuna.samplers.TPESampler(
            seed=int(seed.generate_state(1)[0]),
            # Loss weights matter by their ratios.
            multivariate=True,
            # Trials that run at once must differ.
            constant_liar=True,
            n_startup_trials=max(2, min(10, sweep.num_samples // 4)),
        ),
    )
    distributions = OptunaSearch.convert_search_space(sweep.space.domains())
    for trial in past:
        state, values, steps = _known(sweep, trial)
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                values=values,
                params=trial.config,
                distributions=distributions,
                intermediate_values=steps,
            )
        )
    return study.ask(distributions).params


def _known(sweep: Sweep, trial: Drawn) -> tuple[str, list[float] | None, dict[int, float]]:
    """A trial for Optuna: its state, its values and, with one objective, its intermediate values."""
    reports = Trials(sweep).journal(trial.id).read()
    if trial.end == "failed":
        return "FAIL", None, {}
    if trial.end == "finished":
        return "COMPLETE", [reports[-1].metrics[objective.metric] for objective in sweep.objectives], {}
    if not reports or len(sweep.objectives) > 1:
        return "RUNNING", None, {}
    # Ranked below what was trained to the end, by how far it came and then by its value.
    (objective,) = sweep.objectives
    return "PRUNED", None, {report.images_seen: report.metrics[objective.metric] for report in reports}
