"""A sweep whose driver was killed goes on, and comes to what it would have come to."""

from __future__ import annotations

import pytest

from tests.forks import Fork
from tests.tune.lab import RANGES, WHOLE_SWEEPS, Lab, gesso
from tests.waiting import wait_until
from tune.journal import Journal
from tune.sweep import Sweep

pytestmark = WHOLE_SWEEPS


@pytest.mark.proof
@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_killed_sweep_goes_on_and_comes_to_the_same(lab: Lab, scheduler: str) -> None:
    asked = ("--search=tpe", f"--scheduler={scheduler}", "--num-samples=4", "--concurrent=1", "--run.kimg=0.096")
    whole, undisturbed = lab.run(lab.space(**RANGES), *asked)
    driver = Fork("gesso.cli.main", lab.arguments(lab.space(**RANGES), *asked), lab.root / "driver.log")
    try:
        sweep = wait_for_trials(lab, whole, count=3)
    finally:
        driver.kill()
        driver.wait()
    _, before = lab.last()
    finished = {row.id for row in before if row.state == "finished"}
    stamps = {identity: stamp(sweep, identity) for identity in finished}
    # With ASHA those before wait at the first rung.
    assert bool(finished) == (scheduler == "none")
    gesso("tune", "--resume", str(sweep.path))
    _, after = lab.last()
    assert {identity: stamp(sweep, identity) for identity in finished} == stamps
    assert [row.config for row in after] == [row.config for row in undisturbed]
    assert [[r.metrics["val/planted"] for r in row.reports] for row in after] == [
        [r.metrics["val/planted"] for r in row.reports] for row in undisturbed
    ]


def wait_for_trials(lab: Lab, other: Sweep, *, count: int) -> Sweep:
    """Waits until a sweep's trial number ``count`` has reported something, but not all."""

    def begun() -> Sweep | None:
        sweep, rows = lab.last()
        if sweep.path == other.path or len(rows) < count:
            return None
        return sweep if 1 <= len(Journal(sweep.trials / rows[-1].id).read()) < 5 else None

    sweep = wait_until(begun, f"the first reports of trial {count}", seconds=240, every=0.05)
    assert sweep is not None
    return sweep


def stamp(sweep: Sweep, identity: str) -> float:
    """When a trial's run last changed."""
    return (sweep.trials / identity / "run.json").stat().st_mtime
