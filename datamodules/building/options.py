"""Options of a build."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import get_args

from datamodules.building.candidates import Source
from datamodules.decoding.images import PIXEL_LIMIT, ImageFormat, ResizeMode

SPLITS = ("train", "val", "test")
#: Largest ``size``: an image of it takes 300 MB.
SIZE_LIMIT = 10_000


@dataclass(frozen=True)
class BuildOptions:
    """Options that define a shard set: any change makes another one.

    Args:
        size: pixels, see ``resize``; None leaves images as large as they are.
        resize: ``center_crop`` to size x size, ``squash`` to size x size, ``shortest`` side to size, or ``none``.
        channels: 1 (grey), 3 (RGB) or None: 1 when all images are grey.
        format: ``jpg``, ``png`` or ``webp``; None: jpg, but png for the data sets known by name, which are tiny.
        quality: of JPEG and WebP, 1 to 100.
        samples_per_shard: samples in every shard but the last.
        splits: shares of train/val/test such as ``80/10/10``, drawn by each image's content; ``official``: as the
            data set's authors split it; None: official where there is one, else 80/10/10.
        min_size: images whose shorter side is under it, in pixels, are dropped.
        max_pixels: images of more pixels are dropped before they are decoded.
        classes: whether class folders (or ``.cls`` members) become labels.
        captions: whether ``.txt`` files beside the images become captions.
        keep_duplicates: whether images with the same pixels as another are kept; all go to one split.
        restart_markers: whether JPEGs get restart markers, without loss, so that crops are decoded in part.
    """

    size: int | None = None
    resize: ResizeMode = "center_crop"
    channels: int | None = None
    format: ImageFormat | None = None
    quality: int = 95
    samples_per_shard: int = 10_000
    splits: str | None = None
    min_size: int = 1
    max_pixels: int = 100_000_000
    classes: bool = True
    captions: bool = True
    keep_duplicates: bool = False
    restart_markers: bool = False

    def __post_init__(self) -> None:
        if self.splits is not None:
            shares(self.splits)
        checks = {
            f"size {self.size}: 1 to {SIZE_LIMIT} pixels": self.size is None or 1 <= self.size <= SIZE_LIMIT,
            f"resize {self.resize!r}: one of {', '.join(get_args(ResizeMode))}": self.resize in get_args(ResizeMode),
            f"channels {self.channels}: 1 or 3": self.channels in (None, 1, 3),
            f"format {self.format!r}: one of {', '.join(get_args(ImageFormat))}": self.format
            in (None, *get_args(ImageFormat)),
            f"quality {self.quality}: 1 to 100": 1 <= self.quality <= 100,
            f"samples per shard {self.samples_per_shard}: must be 1 or more": self.samples_per_shard >= 1,
            f"min size {self.min_size}: must be 1 or more": self.min_size >= 1,
            f"max pixels {self.max_pixels}: 1 to {PIXEL_LIMIT}": 1 <= self.max_pixels <= PIXEL_LIMIT,
        }
        for complaint, good in checks.items():
            if not good:
                raise ValueError(complaint)


def shares(splits: str) -> dict[str, float] | None:
    """Parses ``80/10/10`` to the shares of train, val and test; ``official`` gives None.

    Raises:
        ValueError: neither.
    """
    if splits == "official":
        return None
    parts = splits.split("/")
    if len(parts) > 3 or not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts) or float(parts[0]) <= 0:
        raise ValueError(f"splits {splits!r}: shares of train/val/test such as 80/10/10, 90/10 or 100, or `official`")
    return {name: float(part) for name, part in zip(SPLITS, parts, strict=False) if float(part) > 0}


def completed(options: BuildOptions, source: Source) -> BuildOptions:
    """Fills in the defaults that depend on the source.

    Raises:
        ValueError: the source does not have what an option asks for.
    """
    splits = options.splits or ("official" if source.official else "80/10/10")
    if splits == "official" and not source.official:
        raise ValueError(f"{source.identity}: has no official splits; use --splits 80/10/10")
    image_format = options.format or source.default_format
    if options.restart_markers and image_format != "jpg":
        raise ValueError(f"restart markers are a matter of JPEGs, not of {image_format}; add --format jpg")
    return replace(options, splits=splits, format=image_format)
