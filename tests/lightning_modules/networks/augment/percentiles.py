"""Transformations at fixed percentiles of their random numbers, as the authors' code can be asked to apply them.

The figures in ``tests/fixtures/stylegan2/augment.npz`` are those of ``AugmentPipe(..., debug_percentile=q)`` of
NVlabs/stylegan2-ada-pytorch in float64, run once on a CPU; none of its code is here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.networks.augment.columns import Columns
from tests.lightning_modules.networks.stylegan2.mapped import formula

PERCENTILES = (0.3, 0.8)
SHAPE = (2, 3, 24, 28)
#: By the authors' name: our group, and which of its gates are open.
SINGLE: dict[str, tuple[str, tuple[int, ...]]] = {
    "xflip": ("blit", (0,)),
    "rotate90": ("blit", (1,)),
    "xint": ("blit", (2,)),
    "scale": ("geom", (0,)),
    "rotate": ("geom", (1,)),
    "aniso": ("geom", (2,)),
    "xfrac": ("geom", (4,)),
    "brightness": ("color", (0,)),
    "contrast": ("color", (1,)),
    "lumaflip": ("color", (2,)),
    "hue": ("color", (3,)),
    "saturation": ("color", (4,)),
    "imgfilter": ("filter", (0, 1, 2, 3)),
    "noise": ("noise", (0,)),
    "cutout": ("cutout", (0,)),
}
#: Several at once; of the geometry all but the second rotation, which the authors leave out at a percentile.
TOGETHER = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
TOGETHER_COLORS = ("brightness", "contrast", "lumaflip", "hue", "saturation")
GATES = {"bg": (0, 1, 2, 3, 4, 5, 7), "bgc": (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12), "color": (0, 1, 2, 3, 4)}


def pictures(channels: int) -> Tensor:
    """Images ``[2, channels, 24, 28]``."""
    return formula((SHAPE[0], channels, *SHAPE[2:]), 5) * 0.5


def field() -> Tensor:
    """What is added as noise."""
    return formula(SHAPE, 6)


def sparse(images: Tensor) -> Tensor:
    """Every 23rd number of some images."""
    return images.detach().flatten()[::23]


class AtPercentile(Columns):
    """Every random number is at one percentile; gates are open or closed."""

    def __init__(self, percentile: float, gates: tuple[int, ...], *, half_normal: bool = False) -> None:
        at = torch.tensor(percentile, dtype=torch.float64)
        self.p = torch.ones(())
        self.gates, self.calls = gates, 0
        self.flat = at.to(torch.get_default_dtype()).expand(SHAPE[0])
        # Without the factor sqrt(2) that a standard normal's percentile has: so it is there.
        bell = torch.erfinv(at if half_normal else 2 * at - 1)
        self.bell = bell.to(torch.get_default_dtype()).expand(SHAPE[0])

    def uniform(self) -> Tensor:
        return self.flat

    def normal(self) -> Tensor:
        return self.bell

    def gated(self, value: Tensor, identity: float, probability: Tensor | None = None) -> Tensor:
        self.calls += 1
        return value if self.calls - 1 in self.gates else torch.full_like(value, identity)

    def skip(self, uniforms: int, normals: int) -> None:
        pass
