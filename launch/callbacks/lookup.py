"""What belongs to a trainer: its run folder, and its callbacks by their class."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import lightning as L

from launch.runs.folder import RunFolder

C = TypeVar("C", bound=L.Callback)


def run_folder(trainer: L.Trainer) -> RunFolder:
    """The run that this trainer trains."""
    return RunFolder(Path(trainer.default_root_dir))


def find(trainer: L.Trainer, kind: type[C]) -> C | None:
    """The trainer's callback of this kind."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined] # Lightning does not declare it
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
