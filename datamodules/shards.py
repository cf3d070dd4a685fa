"""The data module that every family uses: a shard set's batches, in an order that can be resumed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.latents import LatentSpec
from datamodules.manifest import MANIFEST_NAME, Manifest
from datamodules.order import BalancedOrder, Order, SampleOrder, SequentialOrder
from datamodules.streaming.floats import to_float_images, to_float_latents
from datamodules.streaming.latents import LatentRows, encoded_pictures, latent_rows
from datamodules.streaming.staging import nearest
from datamodules.streaming.stream import ShardStream, StreamBatch
from datamodules.streaming.transforms import Augment, Crop
from datamodules.streaming.workers import WORKER_KIND, WorkerKind
from gesso.common.ranges import Count, Seed, Share, Whole, check_options

#: What must not change between a checkpoint and its continuation, for the rest of the epoch to be what was left.
_ORDER_OPTIONS = ("seed", "window", "balanced")


class ShardData(L.LightningDataModule):
    """Images of a shard set, for any family; or latents, if that is what the set holds (``gesso encode``).

    On the device a batch holds ``image`` float32 [n, C, size, size] in [-1, 1], ``label`` int64 [n] (-1: none),
    ``index`` int64 [n] (rows of the split's index), ``position`` (samples consumed by all ranks) and, where the set has
    them, ``caption`` (list of str). The global batch at a position is the same for any number of ranks and workers.

    Of latents, ``image`` is float32 [n, 2C, h, w]: the means of the encoder's posterior, then its standard deviations,
    both in the units in which latents have mean 0 and standard deviation 1.

    Args:
        path: folder of the shard set (``gesso shards build`` makes one).
        global_batch_size: images of one step over all ranks; a multiple of the number of ranks.
        size: side of the square images in pixels; default: that of the shard set.
        crop: of training images: ``center`` (the largest centred square, resized), ``random`` (a square of ``size``
            pixels, not resized), ``random_resized`` (random area and aspect) or ``none`` (all of it, resized).
        flip: mirror half of the training images left to right.
        color_jitter: scale brightness, contrast and saturation of training images by up to this much, 0 to 1.
        balanced: draw all classes equally often.
        workers: processes or threads on each rank that prepare batches; 0: none.
        worker_kind: ``process``: they hold up neither each other nor the training; ``thread``: the default where forks
            are not safe, which is everywhere but on Linux.
        seed: of order and augmentation.
        window: samples of a segment that are shuffled among each other; see ``order.Order``.
        channels: 1 (grey) or 3 (RGB); default: those of the shard set.
        allow_pipe: let ``pipe:`` shards run their commands on this machine.
    """

    def __init__(
        self,
        path: str,
        global_batch_size: Count = 64,
        *,
        size: Count | None = None,
        crop: Crop = "center",
        flip: bool = False,
        color_jitter: Share = 0.0,
        balanced: bool = False,
        workers: Whole = 2,
        worker_kind: WorkerKind = WORKER_KIND,
        seed: Seed = 0,
        window: Count = 4096,
        channels: int | None = None,
        allow_pipe: bool = False,
    ) -> None:
        super().__init__()
        declared = {"global_batch_size": global_batch_size, "size": size, "workers": workers, "window": window}
        check_options(ShardData, {**declared, "seed": seed, "color_jitter": color_jitter}, "data.")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels {channels}: must be 1 (grey) or 3 (RGB)")
        self.path = path
        self.global_batch_size = global_batch_size
        self.crop = crop
        self.flip = flip
        self.color_jitter = color_jitter
        self.balanced = balanced
        self.workers = workers
        self.worker_kind = worker_kind
        self.seed = seed
        self.window = window
        self.allow_pipe = allow_pipe
        self._size = size
        self._channels = channels
        #: Training samples that all ranks together have been trained on.
        self.position = 0

    # ---- what the data is; known without a trainer ------------------------------------------------------------------

    @cached_property
    def manifest(self) -> Manifest:
        """The shard set; read from this node's own disk where it was staged there."""
        return nearest(Manifest.load(self.path))

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB); of latents, their number C."""
        if self.latents is not None and self._channels not in (None, self.manifest.channels):
            raise ValueError(
                f"{self.path}: holds latents of {self.manifest.channels} channels; leave --data.channels out"
            )
        return self._channels or self.manifest.channels

    @property
    def latents(self) -> LatentSpec | None:
        """What the set's latents are; None: it holds pictures."""
        return self.manifest.latents

    @cached_property
    def pictures(self) -> ShardData:
        """The pictures: this set, or the one that its latents were encoded of, squared and mirrored in the same way.

        Raises:
            FileNotFoundError, ValueError: that is gone, or has other pictures by now.
        """
        if self.latents is None:
            return self
        return ShardData(
            encoded_pictures(self.manifest),
            self.global_batch_size,
            size=self.latents.picture_size,
            channels=self.latents.picture_channels,
            flip=self.flip,
            workers=self.workers,
            worker_kind=self.worker_kind,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unlabelled set."""
        return len(self.manifest.classes)

    @property
    def unlabelled(self) -> int:
        """Number of training images without a label."""
        return self.manifest.unlabelled("train") if "train" in self.manifest.splits else 0

    @property
    def size(self) -> int:
        """Side of the square images in pixels; of latents, their own."""
        if self.latents is not None and (self._size, self._size) not in ((None, None), self.manifest.size):
            raise ValueError(f"{self.path}: holds latents, which have one size; leave --data.size out")
        if self._size is not None:
            return self._size
        size = self.manifest.size
        if size is None or size[0] != size[1]:
            what = "of several sizes" if size is None else f"{size[1]} x {size[0]} pixels"
            raise ValueError(f"{self.path}: its images are {what}: set --data.size to a side in pixels")
        return size[0]

    # ---- where it comes from ----------------------------------------------------------------------------------------

    @classmethod
    def path_options(cls) -> dict[str, str]:
        """Option that names a shard set -> the batch's key for its images."""
        return {"path": "image"}

    def paths(self) -> dict[str, str]:
        """Option -> the folder that is read."""
        return {option: getattr(self, option) for option in self.path_options()}

    def streams(self) -> dict[str, ShardData]:
        """The batch's keys for images -> the stream that fills each; the first one is ``image``."""
        return {"image": self}

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[StreamBatch]:
        """Endless batches from ``position`` on."""
        return self._loader("train", self.training_order(), self.training_rows(), start=self.position)

    def held_out_dataloader(self) -> DataLoader[StreamBatch]:
        """Endless batches of the held-out split, centred, the same each time."""
        split = self.held_out_split
        return self._loader(split, self._shuffled(split), self.held_out_rows(), start=0)

    def val_dataloader(self) -> DataLoader[StreamBatch]:
        """The ``val`` split once, or ``test`` where there is no ``val``; of neither, no batch."""
        splits = [name for name in ("val", "test") if name in self.manifest.splits]
        return self._held_out(splits[0]) if splits else self._held_out("train", samples=0)

    def test_dataloader(self) -> DataLoader[StreamBatch]:
        """The ``test`` split once."""
        return self._held_out("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """uint8 NHWC becomes float32 NCHW in [-1, 1], on the device; latents become float32 of standard deviation 1."""
        return {**batch, "image": self.to_floats(batch["image"])}

    def consumed(self, position: int) -> None:
        """Says that all samples before ``position`` have been trained on; a checkpoint resumes there."""
        self.position = position

    def state_dict(self) -> dict[str, Any]:
        split = self.manifest.split("train")
        return {
            "position": self.position,
            "samples": split.samples,
            "fingerprint": self.manifest.fingerprints["train"],
            "global_batch_size": self.global_batch_size,
            "segments": self.manifest.segments,
            **{option: getattr(self, option) for option in _ORDER_OPTIONS},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return  # validation and test may look at any data
        if state_dict["fingerprint"] != self.manifest.fingerprints["train"]:
            raise ValueError(
                f"{self.path}: not the data set that the checkpoint was trained on ({state_dict['samples']} training "
                f"samples there, {self.manifest.split('train').samples} here, other contents); "
                "set --data.path to that one"
            )
        changed = [option for option in _ORDER_OPTIONS if state_dict[option] != getattr(self, option)]
        if changed:
            then_and_now = ", ".join(f"{name} was {state_dict[name]}, is {getattr(self, name)}" for name in changed)
            raise ValueError(
                f"the checkpoint's samples came in another order ({then_and_now}); set those --data options back"
            )
        # Checkpoints of before have none.
        if (segments := state_dict.get("segments", self.manifest.segments)) != self.manifest.segments:
            raise ValueError(
                f"{self.path}: the checkpoint's samples came in another order, in {segments} segments, and this set "
                f'has {self.manifest.segments}: write "segments": {segments} into {self.manifest.root / MANIFEST_NAME}'
            )
        self.position = state_dict["position"]

    # ---- for evaluation ---------------------------------------------------------------------------------------------

    def reference_batches(
        self, split: str, *, rank: int, world_size: int, batch_size: int, limit: int | None, label: int | None = None
    ) -> Iterator[Tensor]:
        """The pictures of ``split_batches``: uint8 [at most batch_size, C, size, size] in [0, 255]."""
        batches = self.pictures.split_batches(
            split, rank=rank, world_size=world_size, batch_size=batch_size, limit=limit, label=label
        )
        return (batch["image"] for batch in batches)

    def split_batches(
        self, split: str, *, rank: int, world_size: int, batch_size: int, limit: int | None, label: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """``limit`` samples of a split, evenly spaced (None: all), once, centred, in the order of the shards.

        With ``label``, of this class alone.

        Yields:
            this rank's batches: ``image`` uint8 [at most batch_size, C, size, size] in [0, 255], ``label``, ``index``,
            ``position`` and, where the set has them, ``caption``. Of latents, ``image`` is as in training.
        """
        rows, samples = self.rows_of(split, label), self.number_of(split, label)
        limit = min(limit or samples, samples)
        stream = ShardStream(
            self.manifest,
            split,
            order=SequentialOrder(samples, limit, rows),
            batch_size=batch_size * world_size,
            augment=self.held_out_rows(),
            channels=self.channels,
            rank=rank,
            world_size=world_size,
            stop=limit,
            workers=self.workers,
            worker_kind=self.worker_kind,
            allow_pipe=self.allow_pipe,
        )
        for batch in stream:
            images = batch["image"]
            yield {**batch, "image": images.permute(0, 3, 1, 2) if self.latents is None else self.to_floats(images)}

    def rows_of(self, split: str, label: int | None) -> np.ndarray | None:
        """Where the samples of a class lie in a split's index; None without a label: everywhere."""
        return None if label is None else np.flatnonzero(self.manifest.index(split)["label"] == label)

    def number_of(self, split: str, label: int | None = None) -> int:
        """Number of samples of a split; with ``label``, of this class alone."""
        rows = self.rows_of(split, label)
        return self.manifest.split(split).samples if rows is None else len(rows)

    def check_held_out(self) -> None:
        """Checks held-out images before a training begins; raises a ValueError where they cannot be measured."""

    def true_pictures(self, key: str, split: str | None = None) -> Callable[[Sequence[str]], Tensor]:
        """For each picture of a split of the stream ``key`` (None: the held-out one): what it is to become, if known.

        Returns:
            A function from captions of such pictures to uint8 [N, C, size, size] in [0, 255].

        Raises:
            ValueError: it is not known.
        """
        raise ValueError(
            f"of {self.path} no true translations are known: they are of two sets whose held-out pictures have the "
            "same captions, with UnpairedData and --data.paired true"
        )

    @property
    def held_out_split(self) -> str:
        """``val``, or the last split that there is."""
        return "val" if "val" in self.manifest.splits else next(reversed(self.manifest.splits))

    def held_out_batch(self, count: int) -> dict[str, Any]:
        """The same few samples of the validation split (or the last there is) each time.

        Holds what a training batch does, with images uint8 NCHW.
        """
        batches = self.split_batches(self.held_out_split, rank=0, world_size=1, batch_size=count, limit=count)
        # Of ``count`` samples: one batch.
        (batch,) = batches
        return batch

    # ---- streams ----------------------------------------------------------------------------------------------------

    def to_floats(self, images: Tensor) -> Tensor:
        """What the stream gives as what a batch holds: see the class."""
        return to_float_images(images) if self.latents is None else to_float_latents(images, self.latents)

    def training_rows(self) -> Augment | LatentRows:
        """How samples become rows of a training batch."""
        if self.latents is None:
            return Augment(self.size, self.crop, self.flip, self.color_jitter)
        if self.crop != "center" or self.color_jitter:
            raise ValueError(
                f"{self.path}: holds latents, which can be neither cut nor coloured: set --data.crop center and "
                "--data.color_jitter 0"
            )
        return latent_rows(self.manifest, flip=self.flip)

    def held_out_rows(self) -> Augment | LatentRows:
        """How samples become rows of a held-out batch: the same each time."""
        return Augment(self.size) if self.latents is None else latent_rows(self.manifest, flip=False)

    def training_order(self) -> SampleOrder:
        """The order of the training samples."""
        if self.balanced:
            return BalancedOrder(np.asarray(self.manifest.index("train")["label"]), self.seed)
        return self._shuffled("train")

    def _shuffled(self, split: str) -> Order:
        sizes = [shard.samples for shard in self.manifest.split(split).shards]
        return Order(sizes, self.seed, self.manifest.segments, self.window)

    def _held_out(self, split: str, samples: int | None = None) -> DataLoader[StreamBatch]:
        samples = self.manifest.split(split).samples if samples is None else samples
        if self.trainer is not None and samples < self.trainer.world_size:
            samples = 0  # a rank with no batch would wait for ever for the others' averages
        return self._loader(split, SequentialOrder(samples), self.held_out_rows(), start=0, stop=samples)

    def _loader(
        self, split: str, order: SampleOrder, augment: Augment | LatentRows, *, start: int, stop: int | None = None
    ) -> DataLoader[StreamBatch]:
        stream = ShardStream(
            self.manifest,
            split,
            order=order,
            batch_size=self.global_batch_size,
            augment=augment,
            channels=self.channels,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            start=start,
            stop=stop,
            workers=self.workers,
            worker_kind=self.worker_kind,
            seed=self.seed,
            allow_pipe=self.allow_pipe,
        )
        # Never the bare stream: Lightning would save its position too, and that is a batch ahead of training.
        return DataLoader(stream, batch_size=None, pin_memory=torch.cuda.is_available())
