"""Asynchronous successive halving with promotion (Li et al. 2018, arXiv:1810.05934).

Ray Tune's ``ASHAScheduler`` stops trials: one that is not among the best when it reaches a rung ends, and the first
trials, which have no rivals yet, train to the end. Here such a trial is paused, and continues if it turns out to be one
of the best. Over 500 orders of 16 trials with 32 intervals each (η = 4), promotion spends a ninth of all images in the
median and a fifth at most, where stopping spends 29 % and three quarters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gesso.common.extras import needing
from tune.journal import Report
from tune.search import Search
from tune.sweep import Sweep

with needing("tune"):
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class Asha(FIFOScheduler):
    """Trains every trial to the first rung, and the best 1/η of those that reach a rung to the next one.

    When all others are paused, the best trial of the highest rung continues until one trial has reached the end.

    Args:
        sweep: with ``grace_kimg`` (r, the first rung), ``reduction`` (η) and ``kimg`` (R, the end).
        search: the source of trials, which counts those that train.
    """

    def __init__(self, sweep: Sweep, search: Search) -> None:
        super().__init__()
        (self.objective,) = sweep.objectives
        self.search = search
        self.sweep = sweep
        self.levels: list[float] = []
        level = sweep.grace_kimg
        while not sweep.at_end(level):
            self.levels.append(level)
            level *= sweep.reduction
        #: For each rung, the trials that reached it: kimg, and the objective there, signed so that less is better.
        self.rungs: list[dict[str, tuple[float, float]]] = [{} for _ in self.levels]
        #: The rung that a trial's last report reached; None between two rungs.
        self.standing: dict[str, int | None] = {}
        self.someone_finished = False
        for trial in search.trials.read():
            if trial.end != "failed":
                for report in search.trials.journal(trial.id).read():
                    self._record(trial.id, report)

    def _record(self, identity: str, report: Report) -> None:
        """Records a trial's report."""
        self.standing[identity] = None
        if self.sweep.at_end(report.kimg):
            self.someone_finished = True
        elif reached := sum(level <= report.kimg for level in self.levels):
            rung = self.rungs[reached - 1]
            rung.setdefault(identity, (report.kimg, self.objective.sign * report.metrics[self.objective.metric]))
            if rung[identity][0] == report.kimg:
                self.standing[identity] = reached - 1

    def _promotable(self, rung: int) -> list[str]:
        """The best 1/η of the trials that reached a rung."""
        came = self.rungs[rung]
        return sorted(came, key=lambda identity: came[identity][1])[: int(len(came) / self.sweep.reduction)]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._record(trial.trial_id, Report(result["images_seen"], result, {}))
        halted = {other.trial_id for other in tune_controller.get_trials() if other.status == Trial.PAUSED}
        if (
            self.standing[trial.trial_id] is None
            or next(self._promoted({*halted, trial.trial_id}), "") == trial.trial_id
        ):
            return TrialScheduler.CONTINUE
        self.search.halt(trial.trial_id)
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        trials = tune_controller.get_trials()
        halted = {trial.trial_id: trial for trial in trials if trial.status == Trial.PAUSED}
        if self.search.has_room():
            for identity in [*self._between(halted), *self._promoted(halted)]:
                self.search.go_on(identity)
                return halted[identity]
        pending = next((trial for trial in trials if trial.status == Trial.PENDING), None)
        if pending or not self.search.is_finished() or any(trial.status == Trial.RUNNING for trial in trials):
            return pending
        return self._conclude(tune_controller, halted)

    def _between(self, halted: Collection[str]) -> list[str]:
        """Paused trials that no rung paused: the sweep's process ended while they trained."""
        return [identity for identity in halted if self.standing[identity] is None]

    def _promoted(self, halted: Collection[str]) -> Iterator[str]:
        """Paused trials that may continue, those of the highest rung first."""
        for rung in reversed(range(len(self.rungs))):
            for identity in self._promotable(rung):
                if identity in halted and self.standing[identity] == rung:
                    yield identity

    def _conclude(self, tune_controller: Any, halted: Mapping[str, Trial]) -> Trial | None:
        """Only paused trials are left: lets the best one finish if none has; else ends them all."""
        if not self.someone_finished and halted:
            highest = max(rung for identity in halted if (rung := self.standing[identity]) is not None)
            there = [identity for identity in halted if self.standing[identity] == highest]
            best = min(there, key=lambda identity: self.rungs[highest][identity][1])
            self.search.go_on(best)
            return halted[best]
        for trial in halted.values():
            tune_controller.stop_trial(trial)
        return None
