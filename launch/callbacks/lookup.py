"""Finds a trainer's run folder, and its callbacks by their class."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import lightning as L

from launch.runs.folder import RunFolder
from launch.training.lightning_internals import callbacks_of
from lightning_modules.core.family import ImageFamily

C = TypeVar("C", bound=L.Callback)


def run_folder(trainer: L.Trainer) -> RunFolder:
    """The run folder of the trainer."""
    return RunFolder(Path(trainer.default_root_dir))


def family_of(module: L.LightningModule | None) -> ImageFamily:
    """The trained family, as Lightning passes it to callbacks: gesso trains no other modules."""
    return cast(ImageFamily, module)


def find(trainer: L.Trainer, kind: type[C]) -> C | None:
    """The trainer's first callback of this class; None if it has none."""
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, kind)), None)
