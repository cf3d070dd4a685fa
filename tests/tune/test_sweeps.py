"""Whole sweeps through the command line, on a real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gesso.cli.main import main
from tests.launch.offline import wandb_groups, wandb_runs
from tests.tune.lab import RANGES, WHOLE_SWEEPS, Lab
from tests.tune.planted import FIRST, SECOND
from tune.sweep import Sweep
from tune.watch import Row

pytestmark = WHOLE_SWEEPS


def best_of(sweep: Sweep, rows: list[Row]) -> Row:
    return min(rows, key=lambda row: row.value(sweep.objectives[0]))


def assert_found(row: Row, within: float) -> None:
    assert row.config == {
        "model.first": pytest.approx(FIRST, rel=within),
        "model.second": pytest.approx(SECOND, rel=within),
    }


@pytest.mark.proof
def test_tpe_finds_the_planted_optimum(lab: Lab) -> None:
    sweep, rows = lab.run(
        lab.space(**RANGES), "--search=tpe", "--seed=5", "--num-samples=40", "--concurrent=1", "--run.kimg=0.016"
    )
    assert len(rows) == 40
    assert_found(best_of(sweep, rows), within=0.05)
    page = (sweep.path / "report.html").read_text()
    for title in ("Parallel coordinates", "importance for val/planted", "Trials"):
        assert title in page
    # What the sweep recommends is a recipe, with the best trial's values.
    assert main(["fit", f"--config={sweep.path / 'best.yaml'}", f"--run.root={lab.root / 'runs'}"]) == 0
    (run,) = (lab.root / "runs").iterdir()
    trained = json.loads((run / "run.json").read_text())
    assert trained["state"] == "finished"
    assert f"first: {best_of(sweep, rows).config['model.first']}" in (run / "config.yaml").read_text()


@pytest.mark.proof
def test_pbt_finds_the_planted_optimum(lab: Lab) -> None:
    # One trial at a time: the order, and with it all that is drawn, is always the same.
    sweep, rows = lab.run(
        lab.space(**RANGES),
        *("--scheduler=pbt", "--num-samples=6", "--cpus-per-trial=2", "--run.kimg=0.32", "--perturb-kimg=0.016"),
    )
    assert_found(best_of(sweep, rows), within=0.05)
    copies = 0
    for row in rows:
        assert row.state == "finished"
        # However often it took over another one's state, it was trained on each image once.
        images = [report.images_seen for report in row.reports]
        assert images == sorted(set(images))
        copies += len({(report.parent, str(report.config)) for report in row.reports if report.parent})
    assert copies >= 6


@pytest.mark.proof
def test_asha_spends_a_third_and_finds_one_of_the_best(lab: Lab) -> None:
    sweep, rows = lab.run(
        lab.space(first="loguniform(0.1, 90)", second="loguniform(0.01, 4)"),
        *(
            "--scheduler=asha",
            "--num-samples=12",
            "--run.kimg=0.512",
            "--grace-kimg=0.016",
        ),
    )
    assert len(rows) == 12
    assert sum(row.kimg for row in rows) <= 12 * 0.512 / 3
    # The metric's order is known beforehand: what all 12 would have come to, trained to the end.
    first = {row.id: row.reports[0].metrics["val/planted"] for row in rows}
    best = sorted(first, key=first.__getitem__)[:2]
    chosen = best_of(sweep, [row for row in rows if row.state == "finished"])
    assert chosen.id in best
    assert {row.state for row in rows} == {"finished", "stopped"}


def test_a_trial_that_diverges_ends_alone(lab: Lab) -> None:
    space = lab.space(diverges_at="grid([24, 1000])")
    sweep, rows = lab.run(space, "--num-samples=1", "--concurrent=1", "--run.wandb=offline")
    assert [row.state for row in rows] == ["failed", "finished"]
    assert rows[0].error == "ValueError: val/planted was nan at 0.032 kimg: this trial has diverged"
    assert rows[0].error in (sweep.path / "report.html").read_text()
    assert sum(1 for _ in Path(sweep.trials).iterdir()) == 2
    # It would have diverged again: nobody began it anew.
    (failures,) = sweep.ray.glob(f"*{rows[0].id}*/error.txt")
    assert failures.read_text().count("Failure #") == 1
    # To W&B they are one group, with a run for each.
    assert wandb_groups(sweep.trials) == {sweep.path.name}
    assert len({identity for identity, _ in wandb_runs(sweep.trials)}) == 2


@pytest.mark.proof
def test_pb2_moves_within_its_bounds(lab: Lab) -> None:
    _, rows = lab.run(lab.space(**RANGES), "--scheduler=pb2", "--num-samples=4", "--perturb-kimg=0.016")
    assert [row.state for row in rows] == ["finished"] * 4
    configs = [report.config for row in rows for report in row.reports]
    assert all(1 <= config["model.first"] <= 9 and 0.07 <= config["model.second"] <= 0.6 for config in configs)
    assert any(report.parent for row in rows for report in row.reports)


def test_two_ranks_are_one_trial(lab: Lab) -> None:
    _, (row,) = lab.run(lab.space(first="grid([3.0])"), "--num-samples=1", "--ranks-per-trial=2")
    assert row.state == "finished"
    assert row.reports[-1].images_seen == 64
