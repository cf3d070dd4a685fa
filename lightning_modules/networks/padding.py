"""Padding by reflection, for maps of any size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def reflect(x: Tensor, by: int = 1) -> Tensor:
    """Pads each side by ``by`` pixels: mirrored, or repeated where a side is too short to mirror so many."""
    modes = ["reflect" if side > by else "replicate" for side in x.shape[2:]]
    if modes[0] == modes[1]:
        return F.pad(x, (by, by, by, by), mode=modes[0])
    return F.pad(F.pad(x, (by, by, 0, 0), mode=modes[1]), (0, 0, by, by), mode=modes[0])
