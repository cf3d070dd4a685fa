"""The progress bar: images, images/s, FID and time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from launch.callbacks.clock import clock_of
from launch.callbacks.lookup import family_of
from launch.report.pieces import duration
from lightning_modules.core.family import Batch, ImageFamily

#: Seconds between two plain lines in a log file.
LINE_SECONDS = 30.0


class Progress(ProgressBar):
    """One bar over the whole training, counted in kimg."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._last_line = 0.0
        self._evaluated = 0

    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    _enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        console = Console(stderr=True)
        if not self._enabled or not console.is_terminal:
            return
        self._bar = RichProgress(
            TextColumn("{task.fields[what]}"),
            BarColumn(),
            TextColumn("{task.completed:.1f}/{task.total:.1f} kimg"),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._bar.add_task(
            "",
            total=clock_of(trainer).total_images / 1000,
            what="train",
            facts="",
        )
        self._bar.update(self._task, completed=family_of(pl_module).images_seen / 1000)
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if self._bar is not None:
            facts = self._facts(trainer)
            self._bar.update(self._task, completed=family_of(pl_module).images_seen / 1000, what="train", facts=facts)
        elif self._enabled and time.monotonic() - self._last_line > LINE_SECONDS:
            self._line(trainer, family_of(pl_module))

    def evaluated(self, images: int, total: int) -> None:
        """Shows how far an evaluation of ``total`` images has come."""
        self._evaluated = 0 if self._evaluated >= total else self._evaluated
        self._evaluated += images
        if self._bar is not None:
            self._bar.update(self._task, what=f"evaluate {min(self._evaluated, total):,}/{total:,}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._enabled and self._bar is None and trainer.state.fn == "fit":
            self._line(trainer, family_of(pl_module))

    def _line(self, trainer: L.Trainer, module: ImageFamily) -> None:
        clock = clock_of(trainer)
        self._last_line = time.monotonic()
        rate = clock.images_per_second
        left = max(0, clock.total_images - module.images_seen)
        seen = f"{module.images_seen / 1000:.1f}/{clock.total_images / 1000:.1f} kimg"
        parts = (seen, self._facts(trainer), f"{duration(left / rate)} left" if rate else "")
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    @staticmethod
    def _facts(trainer: L.Trainer) -> str:
        rate = clock_of(trainer).images_per_second
        facts = [f"{rate:,.{0 if rate >= 10 else 1}f} images/s"] if rate else []
        # KID's and others' tables are in metrics.csv; a bar has room for one number.
        metrics = trainer.callback_metrics.items()
        facts += [f"FID ({name[4:]}) {value:.2f}" for name, value in metrics if name.startswith("fid/")]
        return "  ".join(facts)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
