"""The generator of residual blocks: a picture to another of its size (CycleGAN, Zhu et al. 2017, arXiv:1703.10593)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.initialization import init_dcgan_
from lightning_modules.networks.instance_norm import InstanceNorm
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import in_full_precision, like_weights

#: Side below which a map in the middle has a single place, which cannot be normalised.
SMALLEST = 5


@dataclass(frozen=True)
class ResnetGeneratorOptions:
    """A generator of residual blocks.

    Args:
        width: channels at full resolution; twice as many at half of it, four times as many at a quarter.
        blocks: residual blocks at a quarter of the resolution: 9 for pictures of 256 pixels or more, 6 for smaller.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    blocks: Count = 9
    gradient_checkpointing: bool = False


class ResnetGenerator(nn.Module):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 of the paper, then tanh.

    Padding is by reflection where the stride is 1, and by zeros elsewhere; instance norm has no scale and shift.

    Args:
        options: see ``ResnetGeneratorOptions``.
        channels: of the pictures, 1 or 3.
    """

    def __init__(self, options: ResnetGeneratorOptions = ResnetGeneratorOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        width = options.width
        self.stem = nn.Conv2d(channels, width, 7)
        self.down = nn.ModuleList(nn.Conv2d(inner, 2 * inner, 3, stride=2, padding=1) for inner in (width, 2 * width))
        self.blocks = nn.ModuleList(ResnetBlock(4 * width) for _ in range(options.blocks))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(inner, inner // 2, 3, stride=2, padding=1) for inner in (4 * width, 2 * width)
        )
        self.to_image = nn.Conv2d(width, channels, 7)
        self.norm = InstanceNorm()
        init_dcgan_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures of the other domain.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1], sides of 5 pixels or more.

        Returns:
            float32 (or better) of the same shape, in [-1, 1].

        Raises:
            ValueError: pictures that are too small.
        """
        if min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"the generator wants pictures of {SMALLEST} pixels or more, not {images.shape[3]} x {images.shape[2]}"
            )
        x = self._normed(self.stem(reflect(like_weights(images, self), 3)))
        sizes = []
        for convolution in self.down:
            sizes.append(x.shape[2:])
            x = self._normed(convolution(x))
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        for convolution, size in zip(self.up, sizes[::-1], strict=True):
            # Odd sides were rounded up on the way down.
            x = self._normed(convolution(x, output_size=size))
        return torch.tanh(in_full_precision(self.to_image(reflect(x, 3))))

    def _normed(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x), inplace=True)


class ResnetBlock(nn.Module):
    """x + F(x): two convolutions 3 x 3, an instance norm behind each, ReLU between; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3) for _ in range(2))
        self.norm = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, h, w]`` to the same shape."""
        first, second = self.convolutions
        inner = F.relu(self.norm(first(reflect(x))), inplace=True)
        added: Tensor = x + self.norm(second(reflect(inner)))
        return added
