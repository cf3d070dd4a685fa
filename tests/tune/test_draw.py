"""No trial of a sweep repeats an earlier one while there are others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tune.test_baseline import sweep_of
from tune.draw import different, draw
from tune.space import read_space
from tune.sweep import Sweep
from tune.trials import Drawn, Trials


def drawn(sweep: Sweep, number: int) -> list[Drawn]:
    """The first trials of a sweep; all of them train at once, so that no result is known."""
    trials = Trials(sweep)
    for _ in range(number):
        trials.add(draw(sweep, trials.read()))
    return trials.read()


def actives(sweep: Sweep, trials: Sequence[Drawn]) -> list[dict[str, Any]]:
    return [sweep.space.active(trial.config) for trial in trials]


@pytest.mark.parametrize("search", ["random", "tpe"])
@pytest.mark.parametrize("seed", range(5))
def test_a_short_list_is_tried_out_before_anything_is_repeated(search: Any, seed: int, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "model.r1_gamma: [0.1, 1.0, 5.0]", search=search, seed=seed)
    trials = drawn(sweep, 7)
    values = [trial.config["model.r1_gamma"] for trial in trials]
    assert sorted(values[:3]) == [0.1, 1.0, 5.0]
    assert set(values[3:]) <= {0.1, 1.0, 5.0}
    # A sweep that was stopped comes to the same.
    assert [draw(sweep, trials[:number]) for number in range(7)] == [trial.config for trial in trials]


@pytest.mark.parametrize("seed", range(5))
def test_combinations_that_differ_without_effect_are_the_same_trial(seed: int, tmp_path: Path) -> None:
    space = """
model.loss: [hinge, wgan]
model.width: randint(1, 4)
model.lambda_gp: {sample: "loguniform(1, 100)", when: {model.loss: [wgan]}}
model.clip: {sample: [1, 2], when: {model.loss: [hinge]}}
"""
    sweep = sweep_of(tmp_path, space, seed=seed)
    found = actives(sweep, drawn(sweep, 40))
    hinges = [trial for trial in found if trial["model.loss"] == "hinge"]
    assert len(hinges) == len({tuple(trial.values()) for trial in hinges}) == 3 * 2
    assert len({trial["model.lambda_gp"] for trial in found if trial["model.loss"] == "wgan"}) == 40 - 6


def test_cells_of_a_grid_are_drawn_in_turn(tmp_path: Path) -> None:
    sweep = sweep_of(
        tmp_path,
        "model.loss: grid([hinge, wgan])\nmodel.width: [1, 2, 3]".replace("[hinge, wgan]", "['hinge', 'wgan']"),
    )
    found = actives(sweep, drawn(sweep, 6))
    assert [trial["model.loss"] for trial in found] == ["hinge", "wgan"] * 3
    assert len({tuple(trial.values()) for trial in found}) == 6


def test_how_many_trials_differ(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("model.loss: [hinge, wgan]\nmodel.clip: {sample: [1, 2, 3], when: {model.loss: hinge}}\n")
    assert different(read_space(file)) == 3 + 1
    file.write_text("model.loss: [hinge, wgan]\nmodel.width: uniform(1, 2)\n")
    assert different(read_space(file)) is None
