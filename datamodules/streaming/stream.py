"""A shuffled, resumable stream of image batches: order + manifest -> pixels.

The stream's whole state is one integer, the number of samples that all ranks together have received. Workers prepare
whole batches ahead. What is in a batch depends on its position alone, so that any number of them makes the same ones,
and the state counts what was received, not what was prepared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.decoding.images import BadImage
from datamodules.manifest import Manifest
from datamodules.order import SampleOrder, uniforms
from datamodules.streaming.latents import LatentRows
from datamodules.streaming.reader import ShardReader, check_pipes
from datamodules.streaming.transforms import DRAWS, Augment
from datamodules.streaming.workers import WORKER_KIND, WorkerKind, prepared
from gesso.common.arguments import whole
from gesso.common.ranges import SEEDS, Range

#: So many samples in a row that cannot be decoded are no accident.
_MAX_BROKEN_IN_A_ROW = 100


class StreamBatch(TypedDict):
    """One rank's part of a global batch.

    ``image``: uint8 [n, size, size, C] in [0, 255], or of latents float16 [n, 2C, h, w]; ``label``: int64 [n], -1
    without label; ``index``: int64 [n], rows of the split's index; ``position``: samples that all ranks together have
    received with this batch.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    position: int
    caption: NotRequired[list[str]]


class ShardStream(IterableDataset[StreamBatch]):
    """Iterates over whole batches of one rank.

    Of the global batch at position t, rank r of W holds the positions t + r, t + r + W ... A broken image is named in a
    warning and counted in ``skipped``. An endless stream puts in its place the next sample of the order that can be
    decoded, so that batches keep their shape; a finite one leaves it out.

    Args:
        manifest: the shard set.
        split: ``train``, ``val`` ...
        order: which sample stands at which position.
        batch_size: samples of a global batch; a multiple of ``world_size``.
        augment: how images become squares, or latents rows.
        channels: 1 or 3; not used of latents.
        rank: this rank.
        world_size: number of ranks.
        start: position to begin at.
        stop: position to end before, None: endless. The last batch may be short, and a rank's part of it missing.
        workers: that prepare batches ahead; 0: the caller does it.
        worker_kind: ``thread`` or ``process``.
        seed: of crops, flips and jitter.
        allow_pipe: whether ``pipe:`` shards may run their commands.

    Raises:
        ValueError: options that contradict each other or the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        *,
        order: SampleOrder,
        batch_size: int,
        augment: Augment | LatentRows,
        channels: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        stop: int | None = None,
        workers: int = 0,
        worker_kind: WorkerKind = WORKER_KIND,
        seed: int = 0,
        allow_pipe: bool = False,
    ) -> None:
        super().__init__()
        batch_size, world_size = whole(batch_size, "batch_size"), whole(world_size, "world_size", Range(1))
        rank = whole(rank, "rank", Range(0, world_size - 1))
        workers, start = whole(workers, "workers", Range(0)), whole(start, "start", Range(0))
        seed = whole(seed, "seed", SEEDS)
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"a global batch of {batch_size} images cannot be dealt to {world_size} ranks in equal parts; "
                "set --data.global_batch_size to a multiple"
            )
        check_pipes(manifest, split, allow_pipe)
        self.manifest = manifest
        self.split = split
        self.order = order
        self.batch_size = batch_size
        self.augment = augment
        self.channels = channels
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self.stop = stop
        self.position = start
        self.workers = workers
        self.worker_kind = worker_kind
        self.seed = seed
        self.allow_pipe = allow_pipe
        #: Sample -> what is wrong with it, for those met by this rank.
        self.skipped: dict[int, str] = {}

    def state_dict(self) -> dict[str, int]:
        """Samples that all ranks together have received."""
        return {"position": self.position}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Sets where an endless stream's next iteration starts; a finite stream always makes a whole pass.

        Raises:
            ValueError: it is no state of a stream.
        """
        if not isinstance(state_dict, Mapping) or "position" not in state_dict:
            raise ValueError(f"{state_dict!r} is no state of a stream, which has a position: see state_dict()")
        self.position = whole(state_dict["position"], "position", Range(0))

    def __iter__(self) -> Iterator[StreamBatch]:
        if get_worker_info() is not None:
            raise RuntimeError("each process of a DataLoader would make all batches; give the stream workers instead")
        starts: Iterator[int] = count(self.position, self.batch_size)
        if self.stop is not None:
            self.position = self.start
            starts = iter(range(self.start, self.stop, self.batch_size))
        reader = ShardReader(self.manifest, self.split, allow_pipe=self.allow_pipe)
        shape = (self.batch_size // self.world_size, *self.augment.row_shape(self.channels))
        for images, (batch, broken) in prepared(
            partial(self._make, reader), starts, shape, self.workers, self.worker_kind
        ):
            self._skip(broken)
            self.position = batch["position"]
            if isinstance(self.augment, LatentRows):
                images = images.view(torch.float16)
            if rows := len(batch["index"]):
                arrays = {key: torch.from_numpy(batch.pop(key)) for key in ("label", "index")}
                yield cast(StreamBatch, {"image": images[:rows], **arrays, **batch})

    @torch.inference_mode()  # calls of torch's operators, one for each image, cost less
    def _make(self, reader: ShardReader, start: int, images: Tensor) -> tuple[dict[str, Any], dict[int, str]]:
        """This rank's part of the global batch that starts at a position.

        Returns:
            the batch, with arrays for tensors and without its images, which are in the first rows of ``images``; and
            what is wrong with samples that cannot be decoded.
        """
        end = start + self.batch_size if self.stop is None else min(start + self.batch_size, self.stop)
        positions = np.arange(start + self.rank, end, self.world_size)
        samples = self.order.locate(positions)
        rows = images.numpy()
        draws = uniforms(self.seed, positions, DRAWS).tolist()
        broken: dict[int, str] = {}
        for row, span in enumerate(reader.prepare(samples)):
            try:
                self.augment.render(reader.read(span), rows[row], draws[row])
            except BadImage as error:
                broken[int(samples[row])] = f"{reader.where(samples[row])}: {error}"
                samples[row] = self._instead(reader, int(positions[row]), rows[row], draws[row], broken)
        whole = samples >= 0
        if not whole.all():
            samples = samples[whole]
            rows[: len(samples)] = rows[: len(whole)][whole]
        batch: dict[str, Any] = {
            "label": self._labels(reader, samples),
            "index": samples,
            "position": end,
        }
        if self.manifest.captions:
            batch["caption"] = reader.captions(samples)
        return batch, broken

    def _labels(self, reader: ShardReader, samples: np.ndarray) -> np.ndarray:
        labels = reader.index["label"][samples].astype(np.int64)
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < max(1, len(self.manifest.classes)):
            raise ValueError(
                f"{self.manifest.root}: labels {labels.min()} to {labels.max()} in its index, and "
                f"{len(self.manifest.classes)} classes; run `gesso shards verify {self.manifest.root}`"
            )
        return labels

    def _instead(
        self, reader: ShardReader, position: int, out: np.ndarray, draws: list[float], broken: dict[int, str]
    ) -> int:
        """Fills the row of a broken sample; returns the sample that it holds, -1 for none."""
        if self.stop is not None:
            return -1
        for following in range(position + 1, position + _MAX_BROKEN_IN_A_ROW):
            sample = int(self.order.locate(np.array([following]))[0])
            try:
                self.augment.render(reader.image(sample), out, draws)
                return sample
            except BadImage as error:
                broken[sample] = f"{reader.where(sample)}: {error}"
        raise ValueError(
            f"{self.manifest.root}: {_MAX_BROKEN_IN_A_ROW} samples in a row cannot be decoded, the last is "
            f"{broken[sample]}; run `gesso shards verify {self.manifest.root}`"
        )

    def _skip(self, broken: dict[int, str]) -> None:
        for sample in broken.keys() - self.skipped.keys():
            warnings.warn(f"left out: {broken[sample]}", RuntimeWarning, stacklevel=2)
        self.skipped.update(broken)
