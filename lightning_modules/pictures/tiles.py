"""Overlapping tiles, for pictures too large for memory: of each result, the part that no border affects is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.losses.style import EPSILON


@dataclass(frozen=True)
class Tile:
    """A tile of a picture, in pixels: the part of the result it gives (top to bottom, left to right), and its input."""

    top: int
    left: int
    bottom: int
    right: int
    seen_top: int
    seen_left: int
    seen_bottom: int
    seen_right: int

    def seen(self, image: Tensor, scale: int = 1) -> Tensor:
        """The part that the tile sees of a map [..., H, W] that is ``scale`` times smaller than the picture."""
        return image[
            ...,
            self.seen_top // scale : -(-self.seen_bottom // scale),
            self.seen_left // scale : -(-self.seen_right // scale),
        ]

    def own(self, result: Tensor, scale: int = 1) -> Tensor:
        """Of a result [..., h, w] for what the tile has seen, ``scale`` times smaller: the part it answers for."""
        top, left = self.seen_top // scale, self.seen_left // scale
        return result[
            ...,
            self.top // scale - top : -(-self.bottom // scale) - top,
            self.left // scale - left : -(-self.right // scale) - left,
        ]

    def put(self, result: Tensor, picture: Tensor, scale: int = 1) -> None:
        """Writes its part of ``result`` (for what it has seen, or a little more) into the picture, or a smaller map."""
        rows = slice(self.top // scale, -(-self.bottom // scale))
        columns = slice(self.left // scale, -(-self.right // scale))
        picture[..., rows, columns] = self.own(result, scale)


def tiles(size: Sequence[int], side: int | None, *, margin: int, multiple: int) -> list[Tile]:
    """Tiles that cover a picture, row by row.

    Args:
        size: height and width of the picture in pixels.
        side: of what a tile answers for, about; None: a single tile, the whole picture.
        margin: pixels seen beyond that on each side where there are any: what a network's outputs depend on.
        multiple: of the network's coarsest map: tiles begin where its pixels do.

    Raises:
        ValueError: the side is not positive.
    """
    if side is not None and side < 1:
        raise ValueError(f"tile is {side}; it must be 1 pixel or more")
    height, width = size
    step = max(height, width) if side is None else side
    step = max(1, -(-step // multiple)) * multiple
    margin = -(-margin // multiple) * multiple
    return [
        Tile(
            top,
            left,
            min(top + step, height),
            min(left + step, width),
            max(0, top - margin),
            max(0, left - margin),
            min(top + step + margin, height),
            min(left + step + margin, width),
        )
        for top in range(0, height, step)
        for left in range(0, width, step)
    ]


def by_tiles(
    function: Callable[[Tile], Sequence[Tensor]], parts: Sequence[Tile], size: Sequence[int], scales: Sequence[int]
) -> list[Tensor]:
    """Maps that a function computes tile by tile, put together.

    Args:
        function: gives for each tile maps [N, C, h, w] for what it sees, ``scales`` times smaller.
        parts: tiles of the picture; of a single one the function's own maps are given back.
        size: height and width of the picture.
        scales: of each map.
    """
    wholes: list[Tensor] = []
    for part in parts:
        found = list(function(part))
        if len(parts) == 1:
            return found
        if not wholes:
            wholes = [
                each.new_empty(*each.shape[:2], *(-(-side // scale) for side in size))
                for each, scale in zip(found, scales, strict=True)
            ]
        for each, whole, scale in zip(found, wholes, scales, strict=True):
            part.put(each, whole, scale)
    return wholes


def merged_mean_std(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """``losses.style.mean_std`` of a map that comes in parts, each [1, C, h, w]: float32 [1, C, 1, 1] each.

    Sums in fp64 stand for the pairwise merging of means, which fp32 would need.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        part = part.double()
        count += part[0, 0].numel()
        total = total.to(part) + part.sum((2, 3), keepdim=True)
        squares = squares.to(part) + part.square().sum((2, 3), keepdim=True)
    mean = total / count
    variance = (squares - count * mean.square()).clamp_min(0) / max(1, count - 1)
    return mean.float(), (variance + EPSILON).sqrt().float()
