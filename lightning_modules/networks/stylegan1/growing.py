"""Progressive growing (Karras et al. 2018, arXiv:1710.10196): networks begin with small images and fade in larger ones.

The level of detail is how often the side of the images is still halved: 0 is full resolution, 1 half of it, and 0.25 is
a mixture of three parts of full resolution and one part of half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative
from lightning_modules.networks.precision import ExactBuffers


@dataclass(frozen=True)
class GrowingOptions:
    """How the resolution grows.

    Args:
        start_resolution: side of the first images in pixels, a power of two from 4 on; as large as ``resolution``:
            nothing grows.
        training_kimg: thousands of images for which a resolution stays.
        transition_kimg: thousands of images over which the next one fades in.

    Raises:
        ValueError: both lengths are 0.
    """

    start_resolution: Count = 8
    training_kimg: NonNegative = 600.0
    transition_kimg: NonNegative = 600.0

    def __post_init__(self) -> None:
        if not self.training_kimg + self.transition_kimg:
            raise ValueError(
                "growing.training_kimg and growing.transition_kimg are both 0: more for one of them, "
                "or growing.start_resolution as large as resolution for no growing"
            )


def first_detail(options: GrowingOptions, resolution: int) -> int:
    """The level of detail at the beginning.

    Raises:
        ValueError: ``start_resolution`` is no power of two from 4 to ``resolution``.
    """
    start = options.start_resolution
    if start < 4 or start > resolution or start & (start - 1):
        raise ValueError(
            f"growing.start_resolution is {start}; it must be a power of two from 4 to resolution ({resolution})"
        )
    return resolution.bit_length() - start.bit_length()


def level_of_detail(options: GrowingOptions, resolution: int, images_seen: int) -> float:
    """The level of detail in the step that starts after ``images_seen`` images."""
    kimg = images_seen / 1000
    length = options.training_kimg + options.transition_kimg
    phase = int(kimg // length)
    faded = max(kimg - phase * length - options.training_kimg, 0.0)
    level = first_detail(options, resolution) - phase - (faded / options.transition_kimg if faded else 0.0)
    return max(level, 0.0)


class Growing(ExactBuffers):
    """A network with a level of detail.

    It is a buffer: moving averages of the weights copy it, and a checkpoint in the middle of growing makes the images
    that it was trained for. All blocks are computed at every level, and those that are not used count 0 times, so that
    the graph, the parameters with gradients, and what a step costs are always the same.

    Args:
        detail: the level at the beginning.
    """

    exact_buffers = ("detail",)
    #: The level of detail, float32 ``[1]``.
    detail: Tensor

    def __init__(self, detail: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("detail", torch.tensor([float(detail)], dtype=torch.float32))

    def grow(self, detail: float) -> None:
        """Sets the level of detail; no device is read."""
        self.detail.fill_(detail)

    def faded(self, larger: Tensor, smaller: Tensor, level: int) -> Tensor:
        """``larger`` up to the level of detail ``level``, ``smaller`` from ``level + 1`` on, a mixture in between.

        Args:
            larger, smaller: of the same shape.
            level: of ``larger``.
        """
        return torch.lerp(larger, smaller, (self.detail - level).clamp(0, 1).to(larger.dtype))


def halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels: ``[N, C, H, W]`` to ``[N, C, H / 2, W / 2]``."""
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """Each pixel four times: ``[N, C, H, W]`` to ``[N, C, 2 H, 2 W]``."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def at_detail(images: Tensor, detail: Tensor, levels: int) -> Tensor:
    """Images with no more detail than the networks': halved and doubled again, between two levels a mixture of both.

    Args:
        images: ``[N, C, H, W]``.
        detail: the level of detail, ``[1]``, from 0 to ``levels``.
        levels: the largest level of detail.
    """
    detail, small, mixed = detail.to(images.dtype), images, torch.zeros_like(images)
    for level in range(levels + 1):
        large = small
        for _ in range(level):
            large = doubled(large)
        mixed = mixed + (1 - (detail - level).abs()).clamp(min=0) * large
        small = halved(small) if level < levels else small
    return mixed
