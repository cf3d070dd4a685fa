"""A shard set's batches for a plain PyTorch loop, without a Trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from datamodules.order import SequentialOrder
from datamodules.shards import ShardData
from datamodules.streaming.stream import ShardStream
from datamodules.streaming.transforms import Crop
from gesso.common.arguments import switch, whole
from gesso.common.ranges import SEEDS, Range


class Stream:
    """Batches with float images, in an order that is a pure function of the seed; its state is one integer.

    See ``gesso.stream`` for the arguments and their defaults.

    Raises:
        FileNotFoundError, ValueError: no shard set, no such split, a batch that cannot be dealt to the ranks, or an
            argument that is none.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str],
        batch_size: int,
        *,
        split: str,
        size: int | None,
        channels: int | None,
        crop: Crop,
        flip: bool,
        seed: int,
        workers: int,
        rank: int,
        world_size: int,
        allow_pipe: bool,
    ) -> None:
        batch_size, seed, flip = whole(batch_size, "batch_size"), whole(seed, "seed", SEEDS), switch(flip, "flip")
        size = None if size is None else whole(size, "size", Range(1))
        channels = None if channels is None else whole(channels, "channels")
        path = os.fspath(shards)
        data = ShardData(path, batch_size, size=size, channels=channels, crop=crop, flip=flip, seed=seed)
        #: What the shard set is: its name, classes and splits.
        self.manifest = data.manifest
        self._to_floats = data.to_floats
        endless = split == "train"
        samples = self.manifest.split(split).samples
        self._stream = ShardStream(
            self.manifest,
            split,
            order=data.training_order() if endless else SequentialOrder(samples),
            batch_size=batch_size,
            augment=data.training_rows() if endless else data.held_out_rows(),
            channels=data.channels,
            rank=rank,
            world_size=world_size,
            stop=None if endless else samples,
            workers=workers,
            seed=seed,
            allow_pipe=switch(allow_pipe, "allow_pipe"),
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._stream:
            yield {**batch, "image": self._to_floats(batch["image"])}

    def state_dict(self) -> dict[str, int]:
        """The place in the stream: samples that all ranks together have received."""
        return self._stream.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Goes on from a place: the next iteration begins there, on any number of ranks.

        Raises:
            ValueError: it is no state of a stream.
        """
        self._stream.load_state_dict(state_dict)
