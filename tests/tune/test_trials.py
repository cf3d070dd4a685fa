"""A sweep's own files, damaged or contradicting each other, are named with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tune.sweep import Objective, Sweep, open_sweep
from tune.trials import Trials
from tune.watch import RESULTS, read_rows


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "space.yaml").write_text("model.beta: loguniform(0.1, 10)\nmodel.loss: [hinge, lsgan]\n")
    made = Sweep(tmp_path, "gesso tune ...", [Objective("val/kl", "min")], 2, kimg=1, every_kimg=1)
    made.save()
    Trials(made).add({"model.beta": 1.0, "model.loss": "hinge"})
    return made


def test_what_was_written_is_read(sweep: Sweep) -> None:
    (trial,) = Trials(open_sweep(sweep.path)).read()
    assert trial.config == {"model.beta": 1.0, "model.loss": "hinge"}


@pytest.mark.parametrize("content", ["", '[{"id": "001", "con', '[{"ID": 3}]', "7"])
def test_a_damaged_list_of_trials_is_named(content: str, sweep: Sweep) -> None:
    (sweep.path / "trials.json").write_text(content)
    with pytest.raises(ValueError, match=r"trials\.json: .*--report"):
        Trials(sweep).read()


@pytest.mark.parametrize("content", ["", "[{", '[{"number": 1}]', "7"])
def test_damaged_results_are_named(content: str, sweep: Sweep) -> None:
    (sweep.path / RESULTS).write_text(content)
    with pytest.raises(ValueError, match=r"results\.json: .*gesso tune --resume"):
        read_rows(sweep)


@pytest.mark.parametrize("content", ["", "{", json.dumps({"path": 1}), "[]"])
def test_a_damaged_sweep_is_named(content: str, sweep: Sweep) -> None:
    (sweep.path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match=r"sweep\.json"):
        open_sweep(sweep.path)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("model.beta: loguniform(0.1, 10)\n", "model.loss"),
        ("model.beta: loguniform(0.1, 10)\nmodel.loss: [hinge]\nmodel.lr: uniform(0, 1)\n", "model.lr"),
        ("model.beta: loguniform(0.1, 10)\nmodel.loss: [lsgan, other]\n", "model.loss"),
    ],
)
def test_a_space_that_has_changed_is_named(space: str, name: str, sweep: Sweep) -> None:
    (sweep.path / "space.yaml").write_text(space)
    with pytest.raises(ValueError, match=rf"space\.yaml: {name} has changed since trial 1 was drawn"):
        Trials(open_sweep(sweep.path)).read()
