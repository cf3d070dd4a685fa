"""A sweep's own files, damaged or contradicting each other, are named with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tune.journal import Report
from tune.outcome import Outcome, summary
from tune.sweep import Objective, Sweep, open_sweep
from tune.trials import Trials
from tune.watch import RESULTS, chosen_of, read_rows, rows_of, save_rows


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


def test_what_a_trial_has_reported_outlives_its_folder(sweep: Sweep) -> None:
    trials = Trials(sweep)
    trials.add({"model.beta": 2.0, "model.loss": "lsgan"})
    for drawn, value in zip(trials.read(), (3.0, 2.0), strict=True):
        trials.journal(drawn.id).add(Report(1000, {"val/kl": value}, drawn.config))
        trials.end(drawn.id, "finished")
    before = rows_of(sweep, ())
    save_rows(sweep, before)
    shutil.rmtree(sweep.trials / "002")
    rows = rows_of(sweep, ())
    assert rows == before
    assert chosen_of(rows, sweep.objectives) == [before[1]]
    said = summary(sweep, Outcome(rows, [], []))
    assert "trial 2: its folder trials/002 is gone; its results are those of results.json" in said
    assert "trial 1:" not in said
    (sweep.path / RESULTS).write_text("[{")
    assert [len(row.reports) for row in rows_of(sweep, ())] == [1, 0]
