"""Reports a trial's metrics to Ray Tune at every validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import clock_of
from launch.callbacks.lookup import find, run_folder
from launch.checkpoints import files
from tune.choices import SPEED
from tune.journal import Journal, Report
from tune.kept import KeptStates
from tune.sweep import Objective


class Reporting(Checkpoint):
    """Callback: writes each validation's metrics into the trial's journal, and passes them to Ray Tune.

    (A ``Checkpoint`` callback, so that Lightning calls it after all others.)

    Args:
        config: the options drawn for this trial.
        objectives: metrics that every report must have.
        states: for how many reports the whole training state is kept; see ``KeptStates``.
        tell: passes a report to Ray Tune; returns when the trial may continue, else ends the thread.
        parent: the trial from which the networks were copied; None: none.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        objectives: tuple[Objective, ...],
        *,
        states: int,
        tell: Callable[[Report], None],
        parent: str | None = None,
    ) -> None:
        self.config = config
        self.objectives = objectives
        self.states = states
        self.tell = tell
        self.parent = parent
        #: Whether Ray Tune ended the trial at its last report.
        self.stopped = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        journal = Journal(run_folder(trainer).path)
        if self.states:
            self._save(trainer, pl_module.images_seen)
        if not trainer.is_global_zero:
            return
        if any(report.images_seen >= pl_module.images_seen for report in journal.read()[-1:]):
            # Stopped after the report, before the next checkpoint: this validation is a repetition.
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # Logged at intervals of its own, it may not have been by now.
        metrics.setdefault(SPEED, clock_of(trainer).speed(pl_module.images_seen) or 0.0)
        self._check(metrics, pl_module.images_seen)
        report = Report(pl_module.images_seen, metrics, self.config, self.parent)
        journal.add(report)
        try:
            self.tell(report)
        except SystemExit:
            # A trial that is stopped at its very end has finished.
            if not trainer.should_stop:
                raise
            self.stopped = True

    def _save(self, trainer: L.Trainer, images_seen: int) -> None:
        """Saves the state after this validation; the run's checkpoint may be older, and would be validated again."""
        kept = KeptStates(run_folder(trainer).path)
        checkpoints = find(trainer, Checkpoints)
        assert checkpoints is not None
        checkpoints.io.wait()
        if trainer.is_global_zero:
            kept.keep(self.states - 1)
            files.remove(kept.path(images_seen))
            kept.folder.mkdir(exist_ok=True)
        trainer.save_checkpoint(kept.path(images_seen), weights_only=False)
        checkpoints.io.wait()

    def _check(self, metrics: Mapping[str, float], images: int) -> None:
        for objective in self.objectives:
            value = metrics.get(objective.metric)
            if value is None:
                known = ", ".join(sorted(metrics))
                raise ValueError(f"{objective.metric} was not measured at {images / 1000:g} kimg; there are {known}")
            if not math.isfinite(value):
                raise ValueError(f"{objective.metric} was {value} at {images / 1000:g} kimg: this trial has diverged")
