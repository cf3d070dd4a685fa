"""Padding by reflection or by repetition, for maps and pictures of any size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def reflect(x: Tensor, by: int = 1) -> Tensor:
    """Pads each side by ``by`` pixels: mirrored, or repeated where a side is too short to mirror so many."""
    modes = ["reflect" if side > by else "replicate" for side in x.shape[2:]]
    if modes[0] == modes[1]:
        return F.pad(x, (by, by, by, by), mode=modes[0])
    return F.pad(F.pad(x, (by, by, 0, 0), mode=modes[1]), (0, 0, by, by), mode=modes[0])


def to_multiple(x: Tensor, of: int) -> Tensor:
    """Pads pictures ``[N, C, H, W]`` at the bottom and right, so that both sides are multiples of ``of``.

    The padding is mirrored, or repeats the last pixel where a side is too short to mirror so many.
    """
    down, right = (-side % of for side in x.shape[2:])
    for pad, side in (((0, 0, 0, down), x.shape[2]), ((0, right, 0, 0), x.shape[3])):
        if any(pad):
            x = F.pad(x, pad, mode="reflect" if side > max(pad) else "replicate")
    return x


def repeat_edges(x: Tensor, of: int, *, least: int = 0) -> Tensor:
    """Repeats the last row and column of pictures ``[N, C, H, W]`` until both sides are multiples of ``of``.

    Args:
        x: pictures.
        of: see above.
        least: a side that would be shorter is as long as this.
    """
    down, right = (max(least, side + -side % of) - side for side in x.shape[2:])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
