"""Asynchronous successive halving: what it spends, what it finds, and that it goes on as if never interrupted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ray.tune.experiment import Experiment, Trial

from tests.tune.planted import FIRST, SECOND
from tune.asha import Asha
from tune.journal import Report
from tune.search import Search
from tune.sweep import Objective, Sweep, open_sweep

METRIC = "val/planted"


@pytest.fixture(autouse=True)
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of Ray's own, which it makes when it runs.
    monkeypatch.setattr(Trial, "init_local_path", lambda self: None)


def a_sweep(path: Path, **more: object) -> Sweep:
    (path / "trials").mkdir(parents=True)
    (path / "space.yaml").write_text("model.first: loguniform(0.1, 90)\nmodel.second: loguniform(0.01, 4)\n")
    options: dict = {"kimg": 32.0, "every_kimg": 1.0, "grace_kimg": 1.0, "reduction": 4.0, "num_samples": 16, **more}
    Sweep(
        path, "gesso tune", [Objective(METRIC, "min")], search="tpe", scheduler="asha", concurrent=1, **options
    ).save()
    return open_sweep(path)


@dataclass
class Cluster:
    """Ray Tune's controller with one place for a trial, which trains an interval at each event."""

    sweep: Sweep
    trials: list[Trial] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.search = Search(self.sweep)
        self.search.add_configurations(Experiment("sweep", run=lambda config: None, storage_path=str(self.sweep.path)))
        self.asha = Asha(self.sweep, self.search)

    def get_trials(self) -> list[Trial]:
        return self.trials

    def stop_trial(self, trial: Trial) -> None:
        trial.status = Trial.TERMINATED
        self.search.on_trial_complete(trial.trial_id)

    def event(self) -> bool:
        """One report; False: all is over."""
        running = next((trial for trial in self.trials if trial.status == Trial.RUNNING), None)
        if running is None:
            while not any(trial.status == Trial.PENDING for trial in self.trials):
                if (trial := self.search.next_trial()) is None:
                    break
                self.trials.append(trial)
            running = self.asha.choose_trial_to_run(self)
            if running is None:
                return not self.search.is_finished()
            running.status = Trial.RUNNING
            if running.trial_id not in self.begun:
                self.begun.add(running.trial_id)
                # A worker tells the last report again when the sweep goes on.
                for report in self.search.trials.journal(running.trial_id).read()[-1:]:
                    self.tell(running, report)
                    return True
        journal = self.search.trials.journal(running.trial_id)
        kimg = len(journal.read()) + 1
        self.spent += 1
        config = running.config
        value = math.log(config["model.first"] / FIRST) ** 2 + math.log(config["model.second"] / SECOND) ** 2
        journal.add(Report(1000 * kimg, {METRIC: value}, config))
        self.tell(running, journal.read()[-1])
        return True

    def tell(self, trial: Trial, report: Report) -> None:
        decision = self.asha.on_trial_result(self, trial, report.result)
        if report.kimg >= self.sweep.kimg:
            self.stop_trial(trial)
        elif decision == "PAUSE":
            trial.status = Trial.PAUSED

    def outcome(self) -> list[tuple[dict, str | None, list[float]]]:
        trials = self.search.trials
        return [(t.config, t.end, [report.kimg for report in trials.journal(t.id).read()]) for t in trials.read()]


@pytest.mark.parametrize("seed", range(5))
def test_a_third_at_most_is_spent_and_the_best_found(tmp_path: Path, seed: int) -> None:
    cluster = Cluster(a_sweep(tmp_path / "sweep", seed=seed))
    while cluster.event():
        pass
    outcome = cluster.outcome()
    assert len(outcome) == 16
    assert {end for _, end, _ in outcome} == {"finished", "stopped"}
    assert cluster.spent <= 16 * 32 / 3
    values = [cluster.search.trials.journal(f"{number + 1:03d}").read()[0].metrics[METRIC] for number in range(16)]
    finished = [values[number] for number, (_, end, _) in enumerate(outcome) if end == "finished"]
    assert min(finished) in sorted(values)[:2]


@pytest.mark.slow
def test_it_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = Cluster(a_sweep(tmp_path / "whole"))
    events = 0
    while whole.event():
        events += 1
    for stop in range(1, events, 7):
        sweep = a_sweep(tmp_path / f"stopped-{stop}")
        first = Cluster(sweep)
        for _ in range(stop):
            assert first.event()
        second = Cluster(sweep)
        while second.event():
            pass
        assert second.outcome() == whole.outcome()
        assert first.spent + second.spent == whole.spent


def test_rungs(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path / "sweep", grace_kimg=2.0, reduction=3.0, kimg=60.0)
    asha = Asha(sweep, Search(sweep))
    assert asha.levels == [2, 6, 18, 54]
    assert json.loads((sweep.path / "sweep.json").read_text())["scheduler"] == "asha"
