"""Draws configurations from a grid, at random, or with Optuna's TPE.

A configuration is a function of the sweep and its earlier trials, so a stopped sweep continues exactly with no further
state. No trial repeats an earlier one while there are others: it would come to the same, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tune.space import Dimension, Space
from tune.sweep import Sweep
from tune.trials import Drawn, Trials

#: How often another configuration is drawn in place of one that was tried: at random, a draw costs little and 20 for
#: each trial find the last untried value of a list; TPE learns from all trials before each.
MOST_DRAWS, MOST_DRAWS_OF_TPE = 1000, 20
#: Combinations of lists that are counted.
MOST_COUNTED = 10_000


def count(sweep: Sweep) -> int:
    """The number of a sweep's trials: ``num_samples``, times the size of its grid if it has one."""
    return sweep.num_samples * math.prod(len(dimension.values) for dimension in _grid(sweep))


def different(space: Space) -> int | None:
    """How many trials of a space differ in an option that has an effect; None: its values are not lists, or too many.

    Args:
        space: the space.
    """
    values = [dimension.values for dimension in space]
    if not 0 < math.prod(len(some) for some in values) <= MOST_COUNTED:
        return None
    names = [dimension.name for dimension in space]
    return len({repr(space.active(dict(zip(names, drawn, strict=True)))) for drawn in itertools.product(*values)})


def draw(sweep: Sweep, past: Sequence[Drawn]) -> dict[str, Any]:
    """Draws the configuration of the trial that follows ``past``; the first is the baseline, where there is one."""
    if not past and sweep.baseline is not None:
        return dict(sweep.baseline)
    seed = np.random.SeedSequence([sweep.seed, len(past)])
    return _tpe(sweep, past, seed) if sweep.search == "tpe" else _chance(sweep, past, seed)


def _grid(sweep: Sweep) -> list[Dimension]:
    return [dimension for dimension in sweep.space if dimension.is_grid]


def _chance(sweep: Sweep, past: Sequence[Drawn], seed: np.random.SeedSequence) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    grid = _grid(sweep)
    cells = list(itertools.product(*(dimension.values for dimension in grid)))
    cell = dict(zip((dimension.name for dimension in grid), cells[len(past) % len(cells)], strict=True))

    def another() -> dict[str, Any]:
        return {
            dimension.name: cell[dimension.name]
            if dimension.is_grid
            else dimension.domain.sample(random_state=generator)
            for dimension in sweep.space
        }

    return _untried(another, sweep.space, past, min(20 * (len(past) + 1), MOST_DRAWS))


def _untried(another: Callable[[], dict[str, Any]], space: Space, past: Sequence[Drawn], draws: int) -> dict[str, Any]:
    """The first of some configurations that trains otherwise than every trial before; the very first where none does.

    Args:
        another: draws one.
        space: knows which options have an effect.
        past: the trials before.
        draws: the most configurations to draw.
    """
    tried = [space.active(trial.config) for trial in past]
    first = config = another()
    for _ in range(draws - 1):
        if space.active(config) not in tried:
            return config
        config = another()
    return config if space.active(config) not in tried else first


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
    # What was asked for counts as a trial that runs, so that the next proposal keeps away from it.
    return _untried(lambda: study.ask(distributions).params, sweep.space, past, MOST_DRAWS_OF_TPE)


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
