"""Ray Tune's source of trials: those that began and have not ended, then new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gesso.common.extras import needing
from launch.runs.folder import RunFolder
from tune.draw import count, draw
from tune.sweep import Sweep
from tune.trials import Drawn, End, Trials

with needing("tune"):
    from ray.tune.experiment import Experiment, Trial
    from ray.tune.search.search_algorithm import SearchAlgorithm

#: How often a trial is restarted after its process was lost; one whose training failed is not.
RETRIES = 3


class _Trial(Trial):
    """A trial that is restarted after its process was lost, but not after its training failed: it would fail again."""

    run_folder: str

    def should_recover(self) -> bool:
        # Ray Tune's rule only counts failures, whatever their cause.
        failed = RunFolder(Path(self.run_folder)).info().get("state") == "failed"
        return not failed and super().should_recover()


class Search(SearchAlgorithm):
    """Source of trials for Ray Tune, which records each trial before Ray gets it, and how it ended.

    Args:
        sweep: the sweep, new or stopped.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials = Trials(sweep)
        self._begun = [trial for trial in self.trials.read() if trial.end is None]
        self._live: set[str] = set()
        self._spec: dict[str, Any] = {}

    @property
    def total_samples(self) -> int:
        return count(self.sweep)

    def add_configurations(self, experiments: Experiment | list[Experiment] | dict[str, dict]) -> None:
        (experiment,) = experiments if isinstance(experiments, list) else [experiments]
        assert isinstance(experiment, Experiment)
        self._spec = experiment.spec

    def has_room(self) -> bool:
        """Whether one more trial may train."""
        return not self.sweep.concurrent or len(self._live) < self.sweep.concurrent

    def halt(self, identity: str) -> None:
        """Records that a trial is paused."""
        self._live.discard(identity)

    def go_on(self, identity: str) -> None:
        """Records that a trial trains again."""
        self._live.add(identity)

    def next_trial(self) -> Trial | None:
        if not self.has_room():
            return None
        trial = self._next()
        if trial is None:
            self.set_finished()
            return None
        reports = self.trials.journal(trial.id).read()
        # In a population, options change while a trial trains: those of its last report.
        config = {**trial.config, **(reports[-1].config if self.sweep.population and reports else {})}
        made = _Trial(
            self._spec["run"],
            trial_id=trial.id,
            experiment_tag=trial.id,
            config=config,
            evaluated_params=config,
            storage=self._spec["storage"],
            checkpoint_config=self._spec["checkpoint_config"],
            placement_group_factory=self._spec["resources_per_trial"],
            max_failures=RETRIES,
        )
        made.run_folder = str(self.sweep.trials / trial.id)
        if self.sweep.scheduler == "asha" and reports:
            # The scheduler knows whether it was paused or trained when the sweep stopped. It may end without a start.
            made.status = Trial.PAUSED
            made.init_local_path()
        else:
            self._live.add(trial.id)
        return made

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        self._live.discard(trial_id)
        reports = self.trials.journal(trial_id).read()
        whole = bool(reports) and self.sweep.at_end(reports[-1].kimg)
        end: End = "failed" if error else "finished" if whole else "stopped"
        self.trials.end(trial_id, end)

    def _next(self) -> Drawn | None:
        if self._begun:
            return self._begun.pop(0)
        past = self.trials.read()
        return self.trials.add(draw(self.sweep, past)) if len(past) < self.total_samples else None
