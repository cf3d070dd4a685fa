"""Limits of Lightning's Trainer, which may end a training before its length in images."""

from __future__ import annotations

from typing import NamedTuple

import lightning as L
from lightning.pytorch.callbacks import Timer

from launch.callbacks.clock import clock_of
from launch.callbacks.lookup import family_of, find


class Limit(NamedTuple):
    """An option of the Trainer, and the value that lifts it."""

    option: str
    none: str


def reached(trainer: L.Trainer) -> Limit | None:
    """The limit that has ended a training, or keeps it from continuing; None: there is none.

    Args:
        trainer: the trainer, after ``fit``.
    """
    if family_of(trainer.lightning_module).images_seen >= clock_of(trainer).total_images:
        return None
    timer = find(trainer, Timer)
    left = timer.time_remaining() if timer is not None else None
    epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
    limits = {
        Limit("trainer.fast_dev_run", "false"): bool(getattr(trainer, "fast_dev_run", False)),
        Limit("trainer.max_steps", "-1"): -1 < trainer.max_steps <= trainer.global_step,
        Limit("trainer.max_time", "null"): left is not None and left <= 0,
        Limit("trainer.max_epochs", "-1"): -1 < epochs <= trainer.current_epoch,
        Limit("trainer.limit_train_batches", "1.0"): trainer.limit_train_batches == 0,
    }
    return next((limit for limit, holds in limits.items() if holds), None)
