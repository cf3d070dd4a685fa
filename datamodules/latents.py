"""Latents in a shard set: what an autoencoder makes of each picture, in place of the picture.

A sample is ``KEY.npy``: float16 [V, 2C, h, w]. V is 1, or 2 where the picture mirrored left to right was encoded as
well; the C means of the posterior come before its C standard deviations. Knows no torch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LatentSpec:
    """What a shard set says of its latents.

    Args:
        encoder: SHA-256 of the encoder's weights, in hexadecimal digits.
        flips: whether the mirrored pictures were encoded as well.
        mean: of each channel, over places, pictures and draws of the training split.
        std: of each channel alike; above 0.
        picture_size: side in pixels of the squares that were encoded.
        picture_channels: 1 (grey) or 3 (RGB).
    """

    encoder: str
    flips: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    picture_size: int
    picture_channels: int

    @classmethod
    def parsed(cls, raw: Mapping[str, Any], channels: object) -> LatentSpec:
        """Reads the entry of a manifest.

        Raises:
            ValueError: numbers that cannot be.
            KeyError, TypeError: it is no such entry.
        """
        found = cls(**{**raw, "mean": tuple(raw["mean"]), "std": tuple(raw["std"])})
        numbers = [*found.mean, *found.std]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError("latents has a mean and std that are no finite numbers")
        if not len(found.mean) == len(found.std) == channels or min(found.std) <= 0:
            raise ValueError(f"latents has a mean and std that are not those of {channels} channels")
        return found


def packed(latents: np.ndarray) -> bytes:
    """The file of a sample: float16 [V, 2C, h, w] in numpy's own format."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(latents, "<f2"), allow_pickle=False)
    return buffer.getvalue()


def normalization(spec: LatentSpec) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand, float32 [2C, 1, 1] each, that bring means and deviations to latents of mean 0 and std 1."""
    mean, std = (np.array(values, np.float64)[:, None, None] for values in (spec.mean, spec.std))
    factor = np.concatenate([1 / std, 1 / std])
    summand = np.concatenate([-mean / std, np.zeros_like(mean)])
    return factor.astype(np.float32), summand.astype(np.float32)
