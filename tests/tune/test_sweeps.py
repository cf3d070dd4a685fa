"""Whole sweeps through the command line, on a real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launch.cli import main
from tests.launch.offline import wandb_groups, wandb_runs
from tests.tune.lab import Lab
from tests.tune.planted import FIRST, SECOND
from tune.journal import Journal
from tune.sweep import Sweep
from tune.watch import Row

pytestmark = [pytest.mark.slow]

RANGES = {"first": "loguniform(1, 9)", "second": "loguniform(0.07, 0.6)"}


def best_of(sweep: Sweep, rows: list[Row]) -> Row:
    return min(rows, key=lambda row: row.value(sweep.objectives[0]))


def assert_found(row: Row, within: float) -> None:
    assert row.config == {
        "model.first": pytest.approx(FIRST, rel=within),
        "model.second": pytest.approx(SECOND, rel=within),
    }


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


def test_pbt_finds_the_planted_optimum(lab: Lab) -> None:
    # One trial at a time: the order, and with it all that is drawn, is always the same.
    sweep, rows = lab.run(
        lab.space(**RANGES),
        *("--scheduler=pbt", "--num-samples=8", "--cpus-per-trial=2", "--run.kimg=0.64", "--perturb-kimg=0.016"),
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


def test_asha_spends_a_third_and_finds_one_of_the_best(lab: Lab) -> None:
    sweep, rows = lab.run(
        lab.space(first="loguniform(0.1, 90)", second="loguniform(0.01, 4)"),
        *(
            "--scheduler=asha",
            "--num-samples=16",
            "--run.kimg=0.512",
            "--grace-kimg=0.016",
        ),
    )
    assert len(rows) == 16
    assert sum(row.kimg for row in rows) <= 16 * 0.512 / 3
    # The metric's order is known beforehand: what all 16 would have come to, trained to the end.
    first = {row.id: row.reports[0].metrics["val/planted"] for row in rows}
    best = sorted(first, key=first.__getitem__)[:2]
    chosen = best_of(sweep, [row for row in rows if row.state == "finished"])
    assert chosen.id in best
    assert {row.state for row in rows} == {"finished", "stopped"}


@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_killed_sweep_goes_on_and_comes_to_the_same(lab: Lab, scheduler: str) -> None:
    asked = ("--search=tpe", f"--scheduler={scheduler}", "--num-samples=8", "--concurrent=1", "--run.kimg=0.096")
    whole, undisturbed = lab.run(lab.space(**RANGES), *asked)
    driver = subprocess.Popen(lab.command(lab.space(**RANGES), *asked), stderr=subprocess.PIPE, text=True)
    try:
        sweep = wait_for_trials(lab, whole, count=5)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    _, before = lab.last()
    finished = {row.id for row in before if row.state == "finished"}
    stamps = {identity: stamp(sweep, identity) for identity in finished}
    # With ASHA those before wait at the first rung.
    assert bool(finished) == (scheduler == "none")
    resumed = subprocess.run(
        [*lab.command(lab.space(**RANGES))[:3], "tune", "--resume", str(sweep.path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert resumed.returncode == 0, resumed.stderr
    _, after = lab.last()
    assert {identity: stamp(sweep, identity) for identity in finished} == stamps
    assert [row.config for row in after] == [row.config for row in undisturbed]
    assert [[r.metrics["val/planted"] for r in row.reports] for row in after] == [
        [r.metrics["val/planted"] for r in row.reports] for row in undisturbed
    ]


def wait_for_trials(lab: Lab, other: Sweep, *, count: int) -> Sweep:
    """Waits until a sweep's trial number ``count`` has reported something, but not all."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        sweep, rows = lab.last()
        if sweep.path != other.path and len(rows) >= count and 1 <= len(Journal(sweep.trials / rows[-1].id).read()) < 5:
            return sweep
        time.sleep(0.05)
    raise AssertionError("no such moment")


def stamp(sweep: Sweep, identity: str) -> float:
    """When a trial's run last changed."""
    return (sweep.trials / identity / "run.json").stat().st_mtime


def test_a_trial_that_diverges_ends_alone(lab: Lab) -> None:
    space = lab.space(diverges_at="grid([0, 24, 0])")
    sweep, rows = lab.run(space, "--num-samples=1", "--run.wandb=offline")
    assert [row.state for row in rows] == ["finished", "failed", "finished"]
    assert rows[1].error == "ValueError: val/planted was nan at 0.032 kimg: this trial has diverged"
    assert rows[1].error in (sweep.path / "report.html").read_text()
    assert sum(1 for _ in Path(sweep.trials).iterdir()) == 3
    # To W&B they are one group, with a run for each.
    assert wandb_groups(sweep.trials) == {sweep.path.name}
    assert len({identity for identity, _ in wandb_runs(sweep.trials)}) == 3


def test_pb2_moves_within_its_bounds(lab: Lab) -> None:
    _, rows = lab.run(lab.space(**RANGES), "--scheduler=pb2", "--num-samples=4", "--perturb-kimg=0.016")
    assert [row.state for row in rows] == ["finished"] * 4
    configs = [report.config for row in rows for report in row.reports]
    assert all(1 <= config["model.first"] <= 9 and 0.07 <= config["model.second"] <= 0.6 for config in configs)
    assert any(report.parent for row in rows for report in row.reports)


def test_two_ranks_are_one_trial(lab: Lab) -> None:
    _, rows = lab.run(lab.space(first="grid([1.0, 3.0])"), "--num-samples=1", "--ranks-per-trial=2")
    assert [row.state for row in rows] == ["finished"] * 2
    assert [row.reports[-1].images_seen for row in rows] == [64, 64]
