"""Counts what every length is counted in, images, and the seconds they took."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from launch.callbacks.lookup import family_of, find, run_folder
from launch.runs.folder import is_over
from launch.runs.tracking import MetricsCSV, record
from launch.training.idle_hooks import leave_out_idle_hooks
from launch.training.lightning_internals import data_of
from launch.training.signals import agreed
from lightning_modules.core.family import Batch, ImageFamily

#: Where a checkpoint has the number of rows that had been logged of its images seen.
ROWS = "rows_logged"


class Every:
    """An interval of ``kimg`` thousand images."""

    def __init__(self, kimg: float) -> None:
        if not 0 < kimg < math.inf:
            raise ValueError(f"an interval of {kimg} kimg; it must be more than 0")
        self.images = kimg * 1000

    def due(self, images_before: int, images_seen: int) -> bool:
        """Whether a multiple of the interval lies in the step from ``images_before`` to ``images_seen``."""
        return images_seen // self.images > images_before // self.images


class Clock(L.Callback):
    """Ends training at ``kimg``, logs mean losses and images/s every ``log_every_kimg``, keeps run.json current.

    It comes before every callback that saves: it tells the data module which samples have been trained on.
    """

    def __init__(self, kimg: float, log_every_kimg: float) -> None:
        self.total_images = round(kimg * 1000)
        self.log_every = Every(log_every_kimg)
        self.seconds = 0.0
        self.images_before = 0
        self.images_per_second = 0.0
        #: Whether the last validation came to its end on all ranks; one that was broken off is done again.
        self.validated = True
        self._tick = 0.0
        self._logged = (0.0, 0)
        #: How many rows metrics.csv had of the images seen of the state that training goes on from; None: not known.
        self._rows: int | None = 0
        self._was_over = False

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[ROWS] = self._rows_of(trainer, family_of(pl_module)) if self.validated else self._rows

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._rows = checkpoint.get(ROWS)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        leave_out_idle_hooks()
        family_of(pl_module).total_kimg = self.total_images / 1000
        # Of a run that had come to its end, the last evaluation was logged after the last checkpoint: it stays.
        self._was_over = is_over(run_folder(trainer).info())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick = time.perf_counter()
        self._logged = (self.seconds, family_of(pl_module).images_seen)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.go_back(family_of(pl_module).images_seen, None if self._was_over else self._rows)
        self._stop_at_the_end(trainer, family_of(pl_module))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.images_before = family_of(pl_module).images_seen

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.seconds, self._tick = self.seconds + now - self._tick, now
        module = family_of(pl_module)
        data = data_of(trainer)
        if data is not None:  # else a plain loader of a user's own script
            data.consumed(batch["position"])
        if self.due(self.log_every, module):
            self._log(trainer, module)
        self._stop_at_the_end(trainer, module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._rows = self._rows_of(trainer, family_of(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Evaluation is not training: its time counts neither in images/s nor in the run's seconds.
        self._tick = time.perf_counter()
        # Asked once, so that all callbacks and the checkpoint agree on whether it is done again.
        self.validated = trainer.state.fn != "fit" or not agreed(trainer)
        if not self.validated:
            return
        record(trainer, {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})

    def due(self, interval: Every, module: ImageFamily) -> bool:
        """Whether ``interval`` came round in the step that has just ended."""
        return interval.due(self.images_before, module.images_seen)

    @staticmethod
    def _rows_of(trainer: L.Trainer, module: ImageFamily) -> int:
        rows = (logger.rows_at(module.images_seen) for logger in trainer.loggers if isinstance(logger, MetricsCSV))
        return next(rows, 0)

    def _stop_at_the_end(self, trainer: L.Trainer, module: ImageFamily) -> None:
        if module.images_seen >= self.total_images:
            trainer.should_stop = True

    def _log(self, trainer: L.Trainer, module: ImageFamily) -> None:
        seconds, images = self._logged
        self.images_per_second = (module.images_seen - images) / max(self.seconds - seconds, 1e-9)
        self._logged = (self.seconds, module.images_seen)
        losses = {f"loss/{name}": value for name, value in module.pop_mean_losses().items()}
        skipped = {f"skipped_updates/{name}": float(n) for name, n in module.skips.totals().items() if n}
        rates = {f"lr/{name}": rate for name, rate in module.learning_rates(self.images_before).items()}
        # First run.json: who has lost the run to another process learns it there, and logs no more.
        self.write(trainer, module)
        record(trainer, {**losses, **rates, **skipped, "images_per_second": self.images_per_second})

    def speed(self, images_seen: int) -> float | None:
        """Images/s of the interval that was logged last; before there is one, since training began; then None."""
        if self.images_per_second:
            return self.images_per_second
        seconds, images = self._logged
        return (images_seen - images) / max(self.seconds - seconds, 1e-9) if images_seen > images else None

    @rank_zero_only
    def write(self, trainer: L.Trainer, module: ImageFamily, **fields: object) -> None:
        """Brings run.json up to date."""
        speed = self.speed(module.images_seen)
        run_folder(trainer).update(
            images_seen=module.images_seen,
            kimg=module.images_seen / 1000,
            seconds=round(self.seconds, 1),
            images_per_second=speed and (round(speed, 1) or speed),
            **fields,
        )


def clock_of(trainer: L.Trainer) -> Clock:
    """The trainer's clock, which every gesso training has."""
    clock = find(trainer, Clock)
    assert clock is not None
    return clock
