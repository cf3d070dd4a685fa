"""Logs metrics and pictures to the run folder's metrics.csv and to W&B."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from launch.runs.folder import RunFolder
from launch.runs.metrics import Row, add_rows, cut_rows

WandbMode = Literal["auto", "online", "offline", "disabled"]


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


class ForgivingWandb(WandbLogger):
    """W&B logger whose failures do not end training: metrics.csv and the pictures are still written."""

    _gone = False

    def __init__(self, *, id: str, known_mode: str, **options: Any) -> None:
        super().__init__(id=id, **options)
        #: Fields for run.json, so that a resumed run finds its W&B run.
        self.facts = {"wandb_id": id, "wandb_mode": known_mode}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._forgiving():
            super().log_metrics(metrics, step)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: object) -> None:
        with self._forgiving():
            super().log_image(key, images, step, **kwargs)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        # What fails at the beginning (a key that is refused) is worth stopping for.
        _ = self.experiment
        try:
            yield
        except Exception as error:
            if not self._gone:
                rank_zero_print(f"W&B no longer answers ({error}); the run folder still keeps everything")
            self._gone = True


def wandb_logger(
    run: RunFolder, project: str, mode: WandbMode, config: Mapping[str, Any], *, group: str | None = None
) -> ForgivingWandb | None:
    """The W&B run of a training: the same one after every resume; offline where there is no key.

    Where run.json has no id yet, one is drawn; the caller writes ``facts`` to run.json before training begins,
    so that a run killed at any moment goes on in W&B where it was.
    """
    known = wandb_mode(mode)
    if known == "disabled":
        return None
    # W&B's own lines would break the progress bar; what it has to say is in run.json and the report.
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    identity = run.info().get("wandb_id") or wandb.sdk.lib.runid.generate_id()
    return ForgivingWandb(
        name=run.path.name,
        project=project,
        id=identity,
        group=group,
        save_dir=str(run.path),
        resume="allow",
        config=dict(config),
        # SLURM's SIGTERM ends W&B's own process as well (wandb issue 9963): what was logged must be on disk by then.
        settings=wandb.Settings(silent=True, mode=known, x_transaction_log_flush_interval=1.0),
        known_mode=known,
    )


def wandb_mode(mode: WandbMode) -> Literal["online", "offline", "disabled"]:
    """Resolves the mode ``auto``: WANDB_MODE if set, online with a key, else offline."""
    if mode != "auto":
        return mode
    if chosen := os.environ.get("WANDB_MODE"):
        return "disabled" if chosen == "disabled" else "offline" if chosen in ("offline", "dryrun") else "online"
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def finish_wandb(*, failed: bool) -> None:
    """Closes this process's W&B run, if there is one: everything is on disk, and the next training gets its own."""
    # Not imported here: what never began needs no end, and an import that fails would hide what ended the training.
    wandb: Any = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    try:
        wandb.finish(exit_code=int(failed))
    except Exception as error:
        rank_zero_print(f"W&B no longer answers ({error}); what it has of this run: wandb sync")
        with contextlib.suppress(Exception):
            # Else it tries once more, and complains at length, when this process ends.
            wandb.teardown()


def record_pictures(trainer: L.Trainer, pictures: Mapping[str, Path]) -> None:
    """Sends PNG files to W&B under their names."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for name, file in pictures.items():
                logger.log_image(name, [str(file)], step=None)
