"""The picture of another shard set that shows the same thing, found by its caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.shards import ShardData
from datamodules.streaming.reader import ShardReader
from datamodules.streaming.transforms import DRAWS
from gesso.common.text import counted


class TruePictures:
    """Pictures of a shard set's split by their captions, read when they are asked for.

    Args:
        data: the shard set's stream.
        split: None: the held-out one.

    Raises:
        ValueError: it has no such split, no captions, or one that two pictures have.
    """

    def __init__(self, data: ShardData, split: str | None = None) -> None:
        split, manifest = split or data.held_out_split, data.manifest
        if not manifest.captions:
            raise ValueError(f"{data.path}: has no captions, by which held-out pictures would be paired")
        self._data = data
        self._reader = ShardReader(manifest, split, allow_pipe=data.allow_pipe)
        captions = captions_of(data, split)
        self._samples = {caption: sample for sample, caption in enumerate(captions)}
        if len(self._samples) < len(captions):
            twice = next(caption for sample, caption in enumerate(captions) if self._samples[caption] != sample)
            raise ValueError(f"{data.path}: two pictures of its split {split} have the caption {twice!r}")

    def check(self, other: ShardData, split: str | None = None) -> None:
        """Checks that there is one for every picture of another set's split; raises a ValueError if not."""
        captions = captions_of(other, split or other.held_out_split)
        if missing := [caption for caption in captions if caption not in self._samples]:
            raise ValueError(
                f"{other.path}: {counted(len(missing), 'held-out picture')} without a picture of the same caption in "
                f"{self._data.path}, such as {missing[0]!r}: hold the same ones out of both (`gesso shards index ... "
                "--val`), or leave --data.paired out"
            )

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """uint8 [N, C, size, size] in [0, 255], in the order of the captions."""
        rows = self._data.held_out_rows()
        images = torch.empty(len(captions), *rows.row_shape(self._data.channels), dtype=torch.uint8)
        spans = self._reader.prepare(np.array([self._samples[caption] for caption in captions], np.int64))
        for row, span in zip(images.numpy(), spans, strict=True):
            rows.render(self._reader.read(span), row, [0.5] * DRAWS)
        return images.permute(0, 3, 1, 2)


def captions_of(data: ShardData, split: str) -> list[str]:
    """The captions of a stream's split, in the order of its samples."""
    reader = ShardReader(data.manifest, split, allow_pipe=data.allow_pipe)
    return reader.captions(np.arange(data.manifest.split(split).samples))
