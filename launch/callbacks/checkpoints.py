"""Checkpoints by images seen: the last few, and the best by a metric."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from launch.callbacks.clock import Every, clock_of, find, run_folder
from launch.callbacks.evaluation import Evaluation


class Checkpoints(Checkpoint):
    """Saves into the run's ``checkpoints/``: ``<images>.ckpt``, a link ``last.ckpt``, and ``best.ckpt``.

    A checkpoint is complete or absent: it is written aside and renamed.

    Args:
        every_kimg: interval in thousands of images.
        keep_last: how many of the periodic ones stay.
        monitor: metric that decides the best: ``fid`` (of the evaluation's extractor) or a full name such as
            ``fid/mobilenet_v2``, ``val/kl``; None keeps no best.
        mode: whether less (``min``) or more (``max``) is better.
    """

    def __init__(
        self,
        every_kimg: float = 200.0,
        keep_last: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"checkpoints.keep_last is {keep_last}; keep 1 or more")
        self.every = Every(every_kimg)
        self.keep_last = keep_last
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self._saved_at = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        evaluation = find(trainer, Evaluation)
        if self.monitor is None or evaluation is None:
            return
        if "/" not in self.monitor:
            self.monitor = f"{self.monitor}/{evaluation.extractor}"
        if not self.monitor.startswith("val/") and self.monitor not in evaluation.names():
            raise ValueError(
                f"checkpoints.monitor is {self.monitor}, which is never measured; the evaluation measures "
                f"{', '.join(evaluation.names()) or 'nothing'}: name one of these, or null"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if clock_of(trainer).due(self.every, pl_module) or trainer.should_stop:
            self.save_last(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        # Somebody else may have stopped training, at a validation.
        if pl_module.images_seen != self._saved_at:
            self.save_last(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if value is None or not math.isfinite(value) or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        better = self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        if better:
            self.best = float(value)
            self._save(trainer, run_folder(trainer).checkpoints / "best.ckpt")

    def save_last(self, trainer: L.Trainer) -> Path:
        """Saves now, points ``last.ckpt`` at it and removes the oldest beyond ``keep_last``."""
        folder = run_folder(trainer).checkpoints
        module: Any = trainer.lightning_module
        self._saved_at = module.images_seen
        path = folder / f"{module.images_seen:012d}.ckpt"
        self._save(trainer, path)
        if trainer.is_global_zero:
            link = folder / "last.ckpt.partial"
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
            link.replace(folder / "last.ckpt")
            for old in sorted(folder.glob("[0-9]*.ckpt"))[: -self.keep_last]:
                if old != path:
                    old.unlink()
        return path

    def _save(self, trainer: L.Trainer, path: Path) -> None:
        partial = path.with_name(path.name + ".partial")
        try:
            trainer.save_checkpoint(partial, weights_only=False)
            if trainer.is_global_zero:
                os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(
                error.errno, f"could not save {path} ({error.strerror or error}); earlier checkpoints are untouched"
            ) from error
        trainer.strategy.barrier("checkpoint")
