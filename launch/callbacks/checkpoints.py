"""Checkpoints by images seen: the last few, the best by a metric, and some for good."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from gesso.common.files import write_whole
from gesso.common.ranges import Count, Positive
from launch.callbacks.clock import Every, clock_of
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import family_of, find, run_folder
from launch.checkpoints import files
from launch.checkpoints.background import BackgroundIO
from launch.runs.folder import RunFolder, at_images
from launch.runs.metrics import read_rows
from launch.runs.tracking import rank_zero_print
from lightning_modules.core.family import Batch, ImageFamily
from lightning_modules.metrics import specs
from lightning_modules.metrics.specs import Direction


class Checkpoints(Checkpoint):
    """Saves into the run's ``checkpoints/``: a folder for each, by images seen, and the links ``last`` and ``best``.

    A checkpoint is complete or absent, the same for every strategy and number of ranks (``launch.checkpoints.layout``).
    Training goes on while it is written.

    Args:
        every_kimg: interval in thousands of images.
        keep_last: how many of the newest stay; the best one does too.
        keep_every_kimg: the first one in every so many thousand images stays for good; None: none does.
        monitor: metric that decides the best: ``fid`` (of the evaluation's extractor) or a full name such as
            ``fid/mobilenet_v2``, ``val/kl``; None keeps no best.
        mode: whether less (``min``) or more (``max``) is better; None: the metric's own direction, ``min`` for losses
            (``val/...``).
    """

    def __init__(
        self,
        every_kimg: Positive = 200.0,
        keep_last: Count = 2,
        keep_every_kimg: Positive | None = None,
        monitor: str | None = None,
        mode: Direction | None = None,
    ) -> None:
        self.every = Every(every_kimg)
        self.keep_last = keep_last
        self.keep_every = Every(keep_every_kimg) if keep_every_kimg is not None else None
        self.monitor = monitor
        self.mode = mode
        #: Which way ``monitor`` gets better; ``find_monitor`` knows.
        self.direction: Direction = mode or "min"
        self.io = BackgroundIO()
        #: The best value of ``monitor`` so far; kept in run.json, since a checkpoint may be older than the validation.
        self.best: float | None = None
        #: Identity of the run that saved the state from which training goes on; None: it is not known.
        self.loaded_identity: str | None = None
        self._recalled = False
        self._saved_at = -1
        #: The run's config and record as they were last seen, for a folder that is moved while training goes on.
        self._seen: tuple[str, dict[str, Any]] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Before Lightning restores: it reads and writes checkpoints through this.
        trainer.strategy.checkpoint_io = self.io

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            for left in run_folder(trainer).checkpoints.glob("*.partial"):
                files.discard(left)
        self.find_monitor(trainer, family_of(pl_module))
        self._recalled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._watch(run_folder(trainer))
        self._recall(trainer, family_of(pl_module))

    def _recall(self, trainer: L.Trainer, module: ImageFamily) -> None:
        """Looks up, once for each training, what was the best before it."""
        if self._recalled:
            return
        self._recalled = True
        best: float | None = None
        if trainer.is_global_zero and self.monitor:
            best = self._best_so_far(run_folder(trainer), module.images_seen)
        # Rank 0's word: the others may see the folder through another node's eyes.
        self.best = trainer.strategy.broadcast(best)

    def _best_so_far(self, run: RunFolder, images_seen: int) -> float | None:
        """The best value of ``monitor`` whose checkpoint is there; it is booked if it is not the one that was.

        A training that goes on from an earlier checkpoint knows nothing of what came after that one.
        """
        known = run.info().get("best") or {}
        checkpoint = run.checkpoints / str(known.get("checkpoint"))
        stands = known.get("metric") == self.monitor and files.is_complete(checkpoint)
        if stands and files.images_seen(checkpoint) <= images_seen:
            return known.get("value")
        found = {
            row.value: run.checkpoints / at_images(row.images_seen)
            for row in read_rows(run.metrics)
            if row.name == self.monitor and math.isfinite(row.value) and row.images_seen <= images_seen
        }
        left = [value for value, path in found.items() if files.is_complete(path)]
        if not left:
            if known:
                run.update(best=None)
            return None
        best = min(left) if self.direction == "min" else max(left)
        self._book_best(run, found[best], best)
        return best

    def find_monitor(self, trainer: L.Trainer, module: ImageFamily) -> None:
        """Makes ``monitor`` a metric's full name, and ``mode`` the way in which it gets better.

        Raises:
            ValueError: the metric is never measured, or ``mode`` contradicts it.
        """
        evaluation = find(trainer, Evaluation)
        if self.monitor is None or evaluation is None:
            return
        names = evaluation.names(module)
        short = {name.partition("/")[0]: name for name in reversed(names)}
        self.monitor = short.get(self.monitor, self.monitor)
        if not self.monitor.startswith("val/") and self.monitor not in names:
            raise ValueError(
                f"checkpoints.monitor is {self.monitor}, which is never measured; the evaluation measures "
                f"{', '.join(names) or 'nothing'}: name one of these, or null"
            )
        self.direction = specs.better(self.monitor, self.mode, option="checkpoints.mode", known=names)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded_identity = (checkpoint.get("run") or {}).get("identity")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        run = run_folder(trainer)
        info = run.info()
        checkpoint["run"] = {
            "name": run.path.name,
            "identity": info.get("identity"),
            "wandb_id": info.get("wandb_id"),
            "strategy": type(trainer.strategy).__name__,
            "world_size": trainer.world_size,
            "precision": trainer.precision,
            "versions": info.get("versions"),
            "config": run.config.read_text() if run.config.is_file() else None,
        }

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        self.io.check()
        if clock_of(trainer).due(self.every, family_of(pl_module)) or trainer.should_stop:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Somebody else may have stopped training, at a validation.
        self.save_and_wait(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # An evaluation that was broken off is done again before this callback's ``on_train_start``.
        self._recall(trainer, family_of(pl_module))
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if value is None or not math.isfinite(value):
            return
        if self.best is None or (value < self.best if self.direction == "min" else value > self.best):
            self.best = float(value)
            self.save(trainer, best=self.best)

    def save(self, trainer: L.Trainer, *, best: float | None = None) -> None:
        """Saves how training stands, if that is not done yet, and deletes what need not be kept.

        Args:
            best: the value of ``monitor``, when it is better than ever before.
        """
        run = run_folder(trainer)
        module = family_of(trainer.lightning_module)
        path = run.checkpoints / at_images(module.images_seen)
        if trainer.is_global_zero:
            run.check_owner()
            self._watch(run)
        if module.images_seen != self._saved_at:
            self._saved_at = module.images_seen
            trainer.save_checkpoint(path, weights_only=False)
        if trainer.is_global_zero:
            self.io.then(lambda: self._book(run, path, best))

    def _watch(self, run: RunFolder) -> None:
        """Writes config and record anew where the run's folder was moved or removed: without, nothing goes on there."""
        if run.config.is_file():
            self._seen = run.config.read_text(), run.info()
        elif self._seen is not None:
            config, info = self._seen
            rank_zero_print(
                f"{run.path}: was moved or removed since training began; what comes now lies in a new folder of that "
                "name"
            )
            run.path.mkdir(parents=True, exist_ok=True)
            run.update(**{**info, **run.info()})
            write_whole(run.config, config)

    def save_and_wait(self, trainer: L.Trainer) -> None:
        """Like ``save``, and returns, on every rank, when all is on the disk."""
        self.save(trainer)
        self.io.wait()
        trainer.strategy.barrier("checkpoint")

    def _book(self, run: RunFolder, path: Path, best: float | None) -> None:
        # Who has taken the run over meanwhile has chosen among the checkpoints: none must go now.
        run.check_owner()
        files.link(run.checkpoints / "last", path)
        if best is not None:
            self._book_best(run, path, best)
        for old in self._superfluous(run.checkpoints):
            files.remove(old)

    def _book_best(self, run: RunFolder, path: Path, best: float) -> None:
        files.link(run.checkpoints / "best", path)
        run.update(best={"metric": self.monitor, "value": best, "checkpoint": path.name})

    def _superfluous(self, folder: Path) -> list[Path]:
        saved = sorted(path for path in folder.glob("[0-9]*") if path.name.isdecimal())
        kept = {(folder / name).resolve().name for name in ("last", "best")}
        kept |= {path.name for path in saved[-self.keep_last :]}
        if self.keep_every:
            counts = [0, *(int(path.name) for path in saved)]
            kept |= {
                path.name
                for path, before, count in zip(saved, counts, counts[1:], strict=False)
                if self.keep_every.due(before, count)
            }
        return [path for path in saved if path.name not in kept]
