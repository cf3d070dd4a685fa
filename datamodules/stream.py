"""A shuffled, resumable stream of image batches: order + manifest -> pixels.

The stream's whole state is one integer, the number of samples that all ranks together have received. Threads or
worker processes prepare whole batches ahead. What is in a batch depends on its position alone, so that any number of
them makes the same ones, and the state counts what was received, not what was prepared.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.buffers import Buffers
from datamodules.images import BadImage
from datamodules.manifest import Manifest
from datamodules.order import SampleOrder, uniforms
from datamodules.reader import ShardReader, check_pipes
from datamodules.transforms import DRAWS, Augment

#: So many samples in a row that cannot be decoded are no accident.
_MAX_BROKEN_IN_A_ROW = 100

_buffers = Buffers()


class Batch(TypedDict):
    """One rank's part of a global batch.

    ``image``: uint8 [n, size, size, C] in [0, 255]; ``label``: int64 [n], -1 without label; ``index``: int64 [n],
    rows of the split's index; ``position``: samples that all ranks together have received with this batch.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    position: int
    caption: NotRequired[list[str]]


class ShardStream(IterableDataset[Batch]):
    """Iterates over whole batches of one rank.

    Of the global batch at position t, rank r of W holds the positions t + r, t + r + W ... A broken image is named in a
    warning and counted in ``skipped``. An endless stream puts in its place the next sample of the order that can be
    decoded, so that batches keep their shape; a finite one leaves it out.

    Args:
        manifest: the shard set.
        split: ``train``, ``val`` ...
        order: which sample stands at which position.
        batch_size: samples of a global batch; a multiple of ``world_size``.
        augment: how images become squares.
        channels: 1 or 3.
        rank: this rank.
        world_size: number of ranks.
        start: position to begin at.
        stop: position to end before, None: endless. The last batch may be short, and a rank's part of it missing.
        threads: that decode ahead; 0 decodes in the caller. Under DataLoader workers (``batch_size=None``), worker w of
            n makes every n-th batch; leave this 0 there.
        prefetch: batches prepared ahead by the threads; default 2 more than there are threads.
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
        augment: Augment,
        channels: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        stop: int | None = None,
        threads: int = 0,
        prefetch: int | None = None,
        seed: int = 0,
        allow_pipe: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"a global batch of {batch_size} images cannot be dealt to {world_size} ranks in equal parts; "
                "set --data.init_args.global_batch_size to a multiple"
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
        self.threads = threads
        self.prefetch = threads + 2 if prefetch is None else prefetch
        self.seed = seed
        self.allow_pipe = allow_pipe
        #: Sample -> what is wrong with it, for those met in this process.
        self.skipped: dict[int, str] = {}

    def state_dict(self) -> dict[str, int]:
        """Samples that all ranks together have received.

        Under DataLoader workers the stream is iterated in other processes: there, only the batches know it.
        """
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """An endless stream's next iteration goes on from there; a finite one is a whole pass each time."""
        self.position = state_dict["position"]

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if self.stop is not None:
            self.position = self.start
        first, step = self.position + number * self.batch_size, workers * self.batch_size
        starts = count(first, step) if self.stop is None else iter(range(first, self.stop, step))
        make = partial(self._make, ShardReader(self.manifest, self.split, allow_pipe=self.allow_pipe))
        batches = _ahead(make, starts, self.threads, self.prefetch) if self.threads else map(make, starts)
        for batch in batches:
            self.position = batch["position"]
            if len(batch["image"]):
                yield batch

    def _make(self, reader: ShardReader, start: int) -> Batch:
        """This rank's part of the global batch that starts at a position."""
        end = start + self.batch_size if self.stop is None else min(start + self.batch_size, self.stop)
        positions = np.arange(start + self.rank, end, self.world_size)
        samples = self.order.locate(positions)
        reader.prepare(samples)
        side = self.augment.size
        images = _buffers.empty((len(positions), side, side, self.channels), torch.uint8)
        rows = images.numpy()
        draws = uniforms(self.seed, positions, DRAWS).tolist()
        for row, position in enumerate(positions.tolist()):
            samples[row] = self._render(reader, position, int(samples[row]), rows[row], draws[row])
        whole = samples >= 0
        if not whole.all():
            images, samples = images[torch.from_numpy(whole)], samples[whole]
        batch: Batch = {
            "image": images,
            "label": torch.from_numpy(reader.index["label"][samples].astype(np.int64)),
            "index": torch.from_numpy(samples),
            "position": end,
        }
        if self.manifest.captions:
            batch["caption"] = [reader.caption(sample) for sample in samples.tolist()]
        return batch

    def _render(self, reader: ShardReader, position: int, sample: int, out: np.ndarray, draws: list[float]) -> int:
        """Fills one row; returns the sample that it holds, -1 for none."""
        for following in range(1, _MAX_BROKEN_IN_A_ROW + 1):
            try:
                self.augment.render(reader.image(sample), out, draws)
                return sample
            except BadImage as error:
                self._skip(sample, f"{reader.where(sample)}: {error}")
            if self.stop is not None:
                return -1
            sample = int(self.order.locate(np.array([position + following]))[0])
        raise ValueError(
            f"{self.manifest.root}: {_MAX_BROKEN_IN_A_ROW} samples in a row cannot be decoded, the last is "
            f"{self.skipped[sample]}; run `gesso shards verify {self.manifest.root}`"
        )

    def _skip(self, sample: int, reason: str) -> None:
        if sample not in self.skipped:
            warnings.warn(f"left out: {reason}", RuntimeWarning, stacklevel=2)
        self.skipped[sample] = reason


def _ahead(make: Callable[[int], Batch], starts: Iterator[int], threads: int, prefetch: int) -> Iterator[Batch]:
    """``map(make, starts)``, prepared by threads, in the same order."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gesso-loader")
    try:
        pending: deque[Future[Any]] = deque(pool.submit(make, start) for start in islice(starts, prefetch))
        while pending:
            batch = pending.popleft().result()
            pending.extend(pool.submit(make, start) for start in islice(starts, 1))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
