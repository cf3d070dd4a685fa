"""Tells Ray Tune how a trial's training stands, at every validation."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import find, run_folder
from launch.checkpoints import files
from tune.journal import Journal, Report
from tune.sweep import Objective

#: The state of a trial that others may take over, in its run folder.
STATE = "state"


class Reporting(L.Callback):
    """Writes each validation's metrics into the trial's journal, and hands them on.

    Args:
        config: what was drawn for this trial.
        objectives: metrics without which a report means nothing.
        states: whether the whole state of training goes with each report.
        tell: takes a report, and the folder of that state; returns when Tune has decided, or ends the thread.
        parent: the trial whose networks these were.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        objectives: tuple[Objective, ...],
        *,
        states: bool,
        tell: Callable[[Report, Path | None], None],
        parent: str | None = None,
    ) -> None:
        self.config = config
        self.objectives = objectives
        self.states = states
        self.tell = tell
        self.parent = parent
        self.latest = Latest()
        #: Ray Tune wants this trial's thread to end.
        self.stopped = False

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        trainer.loggers = [*trainer.loggers, self.latest]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        journal = Journal(run_folder(trainer).path)
        state = self._save(trainer) if self.states else None
        if not trainer.is_global_zero:
            return
        if any(report.images_seen >= pl_module.images_seen for report in journal.read()[-1:]):
            # Stopped after the report, before the next checkpoint: this validation is a repetition.
            return
        self._check(pl_module.images_seen)
        report = Report(pl_module.images_seen, dict(self.latest.metrics), self.config, self.parent)
        journal.add(report)
        try:
            self.tell(report, state)
        except SystemExit:
            # Whoever is stopped at the very end has finished.
            if not trainer.should_stop:
                raise
            self.stopped = True

    def _save(self, trainer: L.Trainer) -> Path:
        """The state after this validation: a checkpoint of the run may be older, and would be validated again."""
        path = run_folder(trainer).path / STATE
        checkpoints = find(trainer, Checkpoints)
        assert checkpoints is not None
        checkpoints.io.wait()
        if trainer.is_global_zero:
            files.discard(path)
        trainer.save_checkpoint(path, weights_only=False)
        checkpoints.io.wait()
        return path

    def _check(self, images: int) -> None:
        for objective in self.objectives:
            value = self.latest.metrics.get(objective.metric)
            if value is None:
                known = ", ".join(sorted(self.latest.metrics))
                raise ValueError(f"{objective.metric} was not measured at {images / 1000:g} kimg; there are {known}")
            if not math.isfinite(value):
                raise ValueError(f"{objective.metric} was {value} at {images / 1000:g} kimg: this trial has diverged")


class Latest(Logger):
    """Remembers the last value of everything that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "latest"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.update({name: float(value) for name, value in metrics.items()})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Known from the configuration."""
