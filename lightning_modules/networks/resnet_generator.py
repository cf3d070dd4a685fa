"""The generator of residual blocks: a picture to another of its size (CycleGAN, Zhu et al. 2017, arXiv:1703.10593).

CUT (Park et al. 2020, arXiv:2007.15651) has it with antialiasing, and reads maps of its first half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from lightning_modules.networks.resampling import blur_down, smooth_up

#: Side below which a map in the middle has a single place, which cannot be normalised.
SMALLEST = 5
#: The generator's output, among the names of its maps.
PICTURE = "picture"


@dataclass(frozen=True)
class ResnetGeneratorOptions:
    """A generator of residual blocks.

    Args:
        width: channels at full resolution; twice as many at half of it, four times as many at a quarter.
        blocks: residual blocks at a quarter of the resolution: 9 for pictures of 256 pixels or more, 6 for smaller.
        antialias: convolve at the larger size and halve it by a blur (Zhang 2019), and double sizes by interpolation
            before a convolution, as CUT does; otherwise convolutions with stride 2, as CycleGAN does. About twice the
            work.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    blocks: Count = 9
    antialias: bool = False
    gradient_checkpointing: bool = False

    def maps(self, channels: int) -> dict[str, int]:
        """Channels of each map that the generator can return, by name, in the order in which it computes them.

        ``pixels``: the picture, padded; ``down1`` and ``down2``: what the two downsampling convolutions give, before
        their norm; ``block1`` ...: what each residual block gives.

        Args:
            channels: of the pictures.
        """
        blocks = {f"block{number}": 4 * self.width for number in range(1, self.blocks + 1)}
        return {"pixels": channels, "down1": 2 * self.width, "down2": 4 * self.width, **blocks}


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
        self.antialias = options.antialias
        width, stride = options.width, 1 if options.antialias else 2
        self.stem = nn.Conv2d(channels, width, 7)
        self.down = nn.ModuleList(
            nn.Conv2d(inner, 2 * inner, 3, stride=stride, padding=1) for inner in (width, 2 * width)
        )
        self.blocks = nn.ModuleList(ResnetBlock(4 * width) for _ in range(options.blocks))
        self.up = nn.ModuleList(
            nn.Conv2d(inner, inner // 2, 3, padding=1)
            if options.antialias
            else nn.ConvTranspose2d(inner, inner // 2, 3, stride=2, padding=1)
            for inner in (4 * width, 2 * width)
        )
        self.to_image = nn.Conv2d(width, channels, 7)
        self.norm = InstanceNorm()
        init_dcgan_(self)

    def forward(self, images: Tensor, maps: Sequence[str] = ()) -> Tensor | list[Tensor]:
        """Pictures of the other domain, or maps on the way to them.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1], sides of 5 pixels or more.
            maps: names of ``ResnetGeneratorOptions.maps``, in their order, and ``picture`` for the picture: what to
                return. Nothing is computed beyond the last of them. Empty: the picture alone.

        Returns:
            The picture, float32 (or better) of the same shape, in [-1, 1]; or the list of what ``maps`` names.

        Raises:
            ValueError: pictures that are too small, or maps that are not those.
        """
        if min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"the generator wants pictures of {SMALLEST} pixels or more, not {images.shape[3]} x {images.shape[2]}"
            )
        wanted, found = tuple(maps) or (PICTURE,), dict[str, Tensor]()
        for name, x in self._way(images):
            if name in wanted:
                found[name] = x
            if name == wanted[-1]:
                break
        if tuple(found) != wanted:
            raise ValueError(f"the generator has no maps {', '.join(wanted)} in this order")
        return list(found.values()) if maps else found[PICTURE]

    def _way(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The maps by name, each as soon as it is known, and last the picture."""
        x = reflect(like_weights(images, self), 3)
        yield "pixels", x
        x = self._normed(self.stem(x))
        sizes = []
        for number, convolution in enumerate(self.down, 1):
            sizes.append(x.shape[2:])
            x = convolution(x)
            yield f"down{number}", x
            x = self._normed(x)
            x = blur_down(x) if self.antialias else x
        for number, block in enumerate(self.blocks, 1):
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
            yield f"block{number}", x
        for convolution, size in zip(self.up, sizes[::-1], strict=True):
            # Odd sides were rounded up on the way down.
            x = convolution(smooth_up(x, size)) if self.antialias else _doubled(convolution, x, size)
            x = self._normed(x)
        yield PICTURE, torch.tanh(in_full_precision(self.to_image(reflect(x, 3))))

    def _normed(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x), inplace=True)


def _doubled(convolution: nn.Module, x: Tensor, size: Sequence[int]) -> Tensor:
    """Twice the size, cut to ``size``: the same as a smaller output padding, and of any size for a tracer."""
    made: Tensor = convolution(x, output_size=[2 * side for side in x.shape[2:]])
    return made[:, :, : size[0], : size[1]]


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
