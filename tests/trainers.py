"""A Trainer that trains on the CPU and does nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L


def bare_trainer(path: Path, **options: Any) -> L.Trainer:
    """One epoch without logs, checkpoints or progress; ``options`` are the Trainer's."""
    bare: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "default_root_dir": path,
    }
    return L.Trainer(**{**bare, **options})
