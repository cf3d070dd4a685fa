"""CAP-VSTNet's reversible network (Wen et al. 2023, arXiv:2303.17867): the picture comes back exactly.

Nothing is lost between picture and features, so that a transfer changes what it is to change and nothing else. Each
block adds to one half of the channels a function of the other half; for the inverse it is subtracted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.pictures.tiles import Tile, by_tiles, tiles

#: ``photo``: features of every pixel, 32 channels; ``art``: of every second pixel, 128 channels, for larger structures.
Mode = Literal["photo", "art"]
#: By mode: how many times the last maps are spread out to twice the sides and a quarter of the channels.
SPREADS: dict[Mode, int] = {"photo": 2, "art": 1}
#: By how much the smallest map is smaller than the picture.
SCALE = 4
#: Pixels around a place on which a block's change depends: 5 at most.
MARGIN = 8


@dataclass(frozen=True)
class ReversibleOptions:
    """CAP-VSTNet's network.

    Args:
        mode: see ``Mode``.
        width: channels of each half at the picture's size, four times as many at each next one.
        blocks: of each of the three sizes.
        gradient_checkpointing: recompute each block's change in the backward pass: less memory, a third more time.
    """

    mode: Mode = "photo"
    width: Count = 16
    blocks: Count = 10
    gradient_checkpointing: bool = False


class ReversibleNetwork(nn.Module):
    """Three stages of reversible blocks, of the picture's size, half and a quarter, and two blocks on what they give.

    Args:
        options: see ``ReversibleOptions``.
    """

    def __init__(self, options: ReversibleOptions = ReversibleOptions()) -> None:
        super().__init__()
        self.width = options.width
        self.spreads = SPREADS[options.mode]
        widths = [options.width * 4**stage for stage in range(3)]
        first_of_stage = [
            (width, int(number == 0 and stage > 0))
            for stage, width in enumerate(widths)
            for number in range(options.blocks)
        ]
        self.blocks = nn.ModuleList(
            _Block(width, bool(halves), options.gradient_checkpointing)
            for width, halves in [*first_of_stage, (widths[-1], 0), (widths[-1], 0)]
        )

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return 2 * self.width * 16 // 4**self.spreads

    def forward(self, images: Tensor, tile: int | None = None) -> Tensor:
        """Features of images.

        Args:
            images: [N, 3, H, W] in [-1, 1]; sides that are no multiple of 4 are mirrored up to the next one.
            tile: work on squares of so many pixels, one after the other; the result is the same. None: on all at once.

        Returns:
            float32 ``photo``: [N, 32, H, W]; ``art``: [N, 128, H / 2, W / 2]; of the mirrored sides.
        """
        height, width = images.shape[2:]
        x = _mirrored((in_full_precision(images) + 1) / 2, (-height % SCALE, -width % SCALE))
        x = torch.cat([x, x.new_zeros(len(x), 2 * self.width - 3, *x.shape[2:])], 1)
        first, second = x.chunk(2, 1)
        for block in self.blocks:
            first, second = block(first, second, tile)
            tile = tile if tile is None or not block.halves else -(-tile // 2)
        x = torch.cat([first, second], 1)
        for _ in range(self.spreads):
            x = unsqueeze(x)
        return x

    def inverse(self, features: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """Images of ``size`` pixels (height, width) in [-1, 1], though not bound to it, of ``forward``'s features."""
        x = in_full_precision(features)
        for _ in range(self.spreads):
            x = squeeze(x)
        first, second = x.chunk(2, 1)
        side = None if tile is None else -(-tile // SCALE)
        for block in reversed(self.blocks):
            assert isinstance(block, _Block)
            side = side if side is None or not block.halves else 2 * side
            first, second = block.inverse(first, second, side)
        # What the transfer has put into the padded channels is dropped.
        return first[:, :3, : size[0], : size[1]] * 2 - 1


class _Block(nn.Module):
    """(x1, x2) -> (x2, x1 + f(x2)) with f of three convolutions; one that halves squeezes both."""

    def __init__(self, channels: int, halves: bool, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.halves = halves
        self.gradient_checkpointing = gradient_checkpointing
        inner = channels // 4
        convolutions = [
            nn.Conv2d(inner if halves else channels, inner, 3, stride=2 if halves else 1),
            nn.Conv2d(inner, inner, 3),
            nn.Conv2d(inner, channels, 3),
        ]
        for convolution in convolutions:
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, first: Tensor, second: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
        change = self._change(second, tile)
        if self.halves:
            first, second = squeeze(first), squeeze(second)
        return second, first + change

    def inverse(self, first: Tensor, second: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
        """Undoes ``forward``."""
        before = unsqueeze(first) if self.halves else first
        rest = second - self._change(before, tile)
        return (unsqueeze(rest) if self.halves else rest), before

    def _change(self, x: Tensor, tile: int | None) -> Tensor:
        parts = tiles(x.shape[2:], tile, margin=MARGIN, multiple=2)

        def run(part: Tile) -> list[Tensor]:
            return [checkpointed(_Change(self.convolutions), part.seen(x), enabled=self.gradient_checkpointing)]

        return in_full_precision(by_tiles(run, parts, x.shape[2:], (2 if self.halves else 1,))[0])


class _Change(nn.Module):
    """f of a block."""

    def __init__(self, convolutions: nn.ModuleList) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(self, x: Tensor) -> Tensor:
        x = like_weights(x, self)
        for number, convolution in enumerate(self.convolutions):
            x = convolution(reflect(F.relu(x) if number else x))
        return x


def squeeze(x: Tensor) -> Tensor:
    """``[N, C, 2 h, 2 w]`` -> ``[N, 4 C, h, w]``: all channels of a square's first pixel, then of the others."""
    count, channels, height, width = x.shape
    x = x.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(count, 4 * channels, height // 2, width // 2)


def unsqueeze(x: Tensor) -> Tensor:
    """The inverse of ``squeeze``."""
    count, channels, height, width = x.shape
    x = x.reshape(count, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(count, channels // 4, 2 * height, 2 * width)


def _mirrored(x: Tensor, more: tuple[int, int]) -> Tensor:
    """Rows below and columns on the right, up to 3 of each: mirrored, or repeated where there are too few."""
    for dim, count in ((2, more[0]), (3, more[1])):
        if count:
            side = x.shape[dim]
            pad = (0, 0, 0, count) if dim == 2 else (0, count, 0, 0)
            x = F.pad(x, pad, mode="reflect" if side > count else "replicate")
    return x
