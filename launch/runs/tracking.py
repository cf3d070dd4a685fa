"""Logs metrics and pictures: to the run folder's metrics.csv, and to every other logger."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from launch.runs.metrics import Row, add_rows, cut_rows


@rank_zero_only
def rank_zero_print(message: str) -> None:
    """Prints a message for the user to stderr, on the first rank alone."""
    print(message, file=sys.stderr, flush=True)


def record(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Logs metrics against the images seen, and shows them to callbacks that monitor one (EarlyStopping, Tune)."""
    images_seen: int = trainer.lightning_module.images_seen  # type: ignore[assignment] # an ImageFamily
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=images_seen)


class MetricsCSV(Logger):
    """Writes what is logged to the run's metrics.csv (see ``launch.runs.metrics``)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._latest = (0, 0)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        images_seen = step or 0
        now = time.time()
        add_rows(self.file, [Row(images_seen, now, name, float(value)) for name, value in metrics.items()])
        self._latest = (images_seen, self.rows_at(images_seen) + len(metrics))

    def rows_at(self, images_seen: int) -> int:
        """How many rows there are so far of the latest images seen; 0 for others."""
        return self._latest[1] if self._latest[0] == images_seen else 0

    @rank_zero_only
    def go_back(self, images_seen: int, rows: int | None) -> None:
        """Takes away what was logged after the state that training goes on from: it is logged again.

        Args:
            images_seen: of that state.
            rows: how many rows of these images seen there were then; None: all that there are now.
        """
        self._latest = (images_seen, cut_rows(self.file, images_seen, rows))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """The run folder holds them in config.yaml."""


def record_pictures(trainer: L.Trainer, pictures: Mapping[str, Path]) -> None:
    """Sends PNG files to W&B under their names."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for name, file in pictures.items():
                logger.log_image(name, [str(file)], step=None)
