"""Tells Ray Tune how a trial's training stands, at every validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.lookup import find, run_folder
from launch.checkpoints import files
from tune.handed import Handed
from tune.journal import Journal, Report
from tune.sweep import Objective


class Reporting(Checkpoint):
    """Writes each validation's metrics into the trial's journal, and hands them on.

    (A ``Checkpoint`` callback, so that Lightning calls it after all others.)

    Args:
        config: what was drawn for this trial.
        objectives: metrics without which a report means nothing.
        states: of how many reports the whole state of training is kept, for other trials.
        tell: takes a report; returns when Tune has decided, or ends the thread.
        parent: the trial whose networks these were.
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
        #: Ray Tune wants this trial's thread to end.
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
        self._check(metrics, pl_module.images_seen)
        report = Report(pl_module.images_seen, metrics, self.config, self.parent)
        journal.add(report)
        try:
            self.tell(report)
        except SystemExit:
            # Whoever is stopped at the very end has finished.
            if not trainer.should_stop:
                raise
            self.stopped = True

    def _save(self, trainer: L.Trainer, images_seen: int) -> None:
        """The state after this validation: a checkpoint of the run may be older, and would be validated again."""
        handed = Handed(run_folder(trainer).path)
        checkpoints = find(trainer, Checkpoints)
        assert checkpoints is not None
        checkpoints.io.wait()
        if trainer.is_global_zero:
            handed.keep(self.states - 1)
            files.remove(handed.path(images_seen))
            handed.folder.mkdir(exist_ok=True)
        trainer.save_checkpoint(handed.path(images_seen), weights_only=False)
        checkpoints.io.wait()

    def _check(self, metrics: Mapping[str, float], images: int) -> None:
        for objective in self.objectives:
            value = metrics.get(objective.metric)
            if value is None:
                known = ", ".join(sorted(metrics))
                raise ValueError(f"{objective.metric} was not measured at {images / 1000:g} kimg; there are {known}")
            if not math.isfinite(value):
                raise ValueError(f"{objective.metric} was {value} at {images / 1000:g} kimg: this trial has diverged")
