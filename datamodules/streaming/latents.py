"""Latents on their way into a batch, where ``transforms`` has pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from datamodules.decoding.images import BadImage
from datamodules.latents import packed
from datamodules.manifest import Manifest


@dataclass(frozen=True)
class LatentRows:
    """Puts the latents of samples into the rows of a batch, where ``Augment`` puts pictures.

    Args:
        channels: C.
        height, width: of the latents.
        flips: whether samples have mirrored ones as well.
        flip: take these for half of the samples.
    """

    channels: int
    height: int
    width: int
    flips: bool
    flip: bool = False

    def row_shape(self, channels: int) -> tuple[int, ...]:
        """The shape of a row of bytes: [2C, h, 2w], as float16 [2C, h, w]."""
        return 2 * self.channels, self.height, 2 * self.width

    def render(self, data: bytes, out: np.ndarray, draws: Any) -> None:
        """Copies the latents of one sample.

        Args:
            data: the sample's file.
            out: uint8 of ``row_shape``; overwritten.
            draws: numbers in [0, 1); the first one decides about the mirrored ones.

        Raises:
            BadImage: no such latents.
        """
        if len(data) != len(self._head) + self._versions * out.nbytes or not data.startswith(self._head):
            raise BadImage("undecodable", f"no latents of the shape {list(self._shape)}")
        version = int(self.flip and draws[0] < 0.5)
        start = len(self._head) + version * out.nbytes
        out[...] = np.frombuffer(data, np.uint8, out.nbytes, start).reshape(out.shape)

    @property
    def _versions(self) -> int:
        return 2 if self.flips else 1

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._versions, 2 * self.channels, self.height, self.width

    @cached_property
    def _head(self) -> bytes:
        """What stands before the numbers in the file of each sample: the same for all."""
        whole = packed(np.zeros(self._shape, np.float16))
        return whole[: len(whole) - 2 * math.prod(self._shape)]


def latent_rows(manifest: Manifest, *, flip: bool) -> LatentRows:
    """How the latents of a shard set become rows of a batch.

    Raises:
        ValueError: ``flip`` is set, and there are no mirrored ones.
    """
    assert manifest.latents is not None
    assert manifest.size is not None
    if flip and not manifest.latents.flips:
        raise ValueError(
            f"{manifest.root}: its latents were encoded without mirrored ones: set --data.flip false, or encode the "
            "pictures again with --flips"
        )
    return LatentRows(manifest.channels, *manifest.size, manifest.latents.flips, flip)


def encoded_pictures(manifest: Manifest) -> str:
    """The folder of the shard set that latents were encoded of.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it holds other pictures by now.
    """
    source = str(manifest.provenance.get("source", ""))
    try:
        found = Manifest.load(source).fingerprints
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{manifest.root}: its latents were encoded of the pictures in {source}, which are not there any more"
        ) from error
    if found != manifest.provenance.get("source_fingerprints"):
        raise ValueError(f"{manifest.root}: its latents were encoded of other pictures than those now in {source}")
    return source
