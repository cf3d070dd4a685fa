"""Asynchronous successive halving that promotes (Li et al. 2018, arXiv:1810.05934).

Ray Tune's ``ASHAScheduler`` stops: a trial that is not among the best when it comes to a rung ends, and the first ones,
which have no rivals yet, train to the end. Here such a trial waits, and goes on when it turns out to be one of the best
after all. Of 500 orders of 16 trials with 32 intervals each (η = 4), this spends a ninth of all images in the median
and a fifth at most, where stopping spends 29 % and three quarters.
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
    """Trains every trial to the first rung, and of those that come to a rung the best 1/η to the next.

    When all others wait, the best of the highest rung goes on until one trial has come to the end.

    Args:
        sweep: with ``grace_kimg`` (r, the first rung), ``reduction`` (η) and ``kimg`` (R, the end).
        search: gives the trials, and is told which of them train.
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
        #: For each rung, the trials that came to it: when, and what they had then, where less is better.
        self.rungs: list[dict[str, tuple[float, float]]] = [{} for _ in self.levels]
        #: The rung at which a trial stands with its last report; None between two.
        self.standing: dict[str, int | None] = {}
        self.someone_finished = False
        for trial in search.trials.read():
            if trial.end != "failed":
                for report in search.trials.journal(trial.id).read():
                    self._record(trial.id, report)

    def _record(self, identity: str, report: Report) -> None:
        """Notes what a trial has come to."""
        self.standing[identity] = None
        if self.sweep.at_end(report.kimg):
            self.someone_finished = True
        elif reached := sum(level <= report.kimg for level in self.levels):
            rung = self.rungs[reached - 1]
            rung.setdefault(identity, (report.kimg, self.objective.sign * report.metrics[self.objective.metric]))
            if rung[identity][0] == report.kimg:
                self.standing[identity] = reached - 1

    def _promotable(self, rung: int) -> list[str]:
        """The best 1/η of those that came to a rung."""
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
        """Those that no rung has halted, but the end of the process that led the sweep."""
        return [identity for identity in halted if self.standing[identity] is None]

    def _promoted(self, halted: Collection[str]) -> Iterator[str]:
        """Those that may go on, of the highest rung first."""
        for rung in reversed(range(len(self.rungs))):
            for identity in self._promotable(rung):
                if identity in halted and self.standing[identity] == rung:
                    yield identity

    def _conclude(self, tune_controller: Any, halted: Mapping[str, Trial]) -> Trial | None:
        """All that is left has been halted: one trial may finish; the others end."""
        if not self.someone_finished and halted:
            highest = max(rung for identity in halted if (rung := self.standing[identity]) is not None)
            there = [identity for identity in halted if self.standing[identity] == highest]
            best = min(there, key=lambda identity: self.rungs[highest][identity][1])
            self.search.go_on(best)
            return halted[best]
        for trial in halted.values():
            tune_controller.stop_trial(trial)
        return None
