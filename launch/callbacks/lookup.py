"""What belongs to a trainer: its run folder, and its callbacks by their class."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import lightning as L

from launch.runs.folder import RunFolder
from launch.training.lightning_internals import callbacks_of

C = TypeVar("C", bound=L.Callback)


def run_folder(trainer: L.Trainer) -> RunFolder:
    """The run that this trainer trains."""
    return RunFolder(Path(trainer.default_root_dir))


def find(trainer: L.Trainer, kind: type[C]) -> C | None:
    """The trainer's callback of this kind."""
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, kind)), None)
