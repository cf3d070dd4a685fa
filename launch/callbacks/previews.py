"""Grids of samples over time, in the run folder and in W&B."""

from __future__ import annotations

import lightning as L

from launch.callbacks.clock import Every, clock_of
from launch.callbacks.lookup import family_of, run_folder
from launch.evaluation.references import held_out
from launch.inference.pictures import image_grid, save_picture
from launch.runs.folder import at_images
from launch.runs.tracking import record_pictures
from launch.training.lightning_internals import data_of
from lightning_modules.core.family import Batch, ImageFamily


class Previews(L.Callback):
    """Writes the family's previews, made with the averaged weights, to ``samples/``, and names them by the images seen.

    Args:
        every_kimg: interval in thousands of images; there is one at the end as well.
        seed: of the samples; the same ones every time, so that one sees them change.
    """

    def __init__(self, every_kimg: float = 50.0, seed: int = 0) -> None:
        self.every = Every(every_kimg)
        self.seed = seed
        self._batch: Batch = {}
        self._written_at = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if clock_of(trainer).due(self.every, family_of(pl_module)) or trainer.should_stop:
            self.write(trainer, family_of(pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if family_of(pl_module).images_seen != self._written_at:
            self.write(trainer, family_of(pl_module))

    def write(self, trainer: L.Trainer, module: ImageFamily) -> None:
        """Every rank generates, since a sharded network needs them all; the first one writes."""
        self._written_at = module.images_seen
        if not self._batch:
            self._batch = held_out(data_of(trainer), 20, module.device)
        with module.evaluating():
            previews = module.previews(self._batch, seed=self.seed)
        if not trainer.is_global_zero:
            return
        written = {}
        for name, (images, columns) in previews.items():
            stem = at_images(module.images_seen)
            file = run_folder(trainer).samples / f"{stem if name == 'samples' else f'{name}-{stem}'}.png"
            save_picture(image_grid(images, columns), file)
            written[name] = file
        record_pictures(trainer, written)
