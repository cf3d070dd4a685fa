"""Grids of samples over time, in the run folder and in W&B."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor

from gesso.common.ranges import Positive, Seed, Whole
from launch.callbacks.clock import Every, clock_of
from launch.callbacks.lookup import family_of, run_folder
from launch.evaluation.neighbours import nearest_pictures
from launch.evaluation.references import held_out
from launch.inference.pictures import image_grid, save_picture
from launch.runs.folder import at_images
from launch.runs.tracking import record_pictures
from launch.training.lightning_internals import data_of
from lightning_modules.core.abilities import Preview
from lightning_modules.core.family import Batch, ImageFamily


class Previews(L.Callback):
    """Writes the family's previews, made with the averaged weights, to ``samples/``, and names them by the images seen.

    Beside the samples of a family that generates there are as many real pictures and, at the end of training, a few
    samples with the training pictures nearest to them.

    Args:
        every_kimg: interval in thousands of images; there is one at the end as well.
        seed: of the samples; the same ones every time, so that one sees them change.
        nearest: of how many samples the nearest training pictures are shown at the end; 0: of none.
    """

    def __init__(self, every_kimg: Positive = 50.0, seed: Seed = 0, nearest: Whole = 8) -> None:
        self.every = Every(every_kimg)
        self.seed = seed
        self.nearest = nearest
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
        self.write_nearest(trainer, family_of(pl_module))

    def write(self, trainer: L.Trainer, module: ImageFamily) -> None:
        """Every rank generates, since a sharded network needs them all; the first one writes."""
        self._written_at = module.images_seen
        if not self._batch:
            self._batch = held_out(data_of(trainer), 20, module.device)
        with module.evaluating():
            previews = module.previews(self._batch, seed=self.seed)
        if not trainer.is_global_zero:
            return
        if "samples" in previews and "generate" in module.abilities():
            self.write_real(trainer, *previews["samples"])
        stem = at_images(module.images_seen)
        self.save(trainer, {stem if name == "samples" else f"{name}-{stem}": made for name, made in previews.items()})

    def write_real(self, trainer: L.Trainer, samples: Tensor, columns: int) -> None:
        """As many real pictures, never trained on, as there are samples; once."""
        stem = f"real-{at_images(0)}"
        if not (run_folder(trainer).samples / f"{stem}.png").exists():
            real = held_out(data_of(trainer).pictures, len(samples), torch.device("cpu"))["image"]
            self.save(trainer, {stem: Preview(real, columns)})

    def write_nearest(self, trainer: L.Trainer, module: ImageFamily) -> None:
        """A few samples, and below each the training pictures that are nearest to it."""
        if not self.nearest or "generate" not in module.abilities():
            return
        with module.evaluating():
            samples = module.generate(torch.arange(self.nearest), seed=self.seed)
        if trainer.is_global_zero:
            pictures = nearest_pictures(samples, data_of(trainer).pictures)
            self.save(trainer, {f"nearest-{at_images(module.images_seen)}": Preview(pictures, self.nearest)})

    def save(self, trainer: L.Trainer, previews: Mapping[str, Preview]) -> None:
        """Writes grids under these names, and shows them to W&B."""
        written = {}
        for stem, (images, columns) in previews.items():
            name = stem.rpartition("-")[0] or "samples"
            file = run_folder(trainer).samples / f"{stem}.png"
            save_picture(image_grid(images, columns), file)
            written[name] = file
        record_pictures(trainer, written)
