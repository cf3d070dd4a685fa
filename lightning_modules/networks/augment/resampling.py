"""Geometric transformation of images by a matrix each, without aliasing, differentiable twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.stylegan2.filters import downsample, upsample

#: The least asymmetric orthogonal wavelet filter with six vanishing moments (Daubechies 1992, "Ten lectures on
#: wavelets", table 6.3): a sharp low-pass filter with little ringing.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)


def warp(images: Tensor, inverse: Tensor, taps: Tensor) -> Tensor:
    """Transforms each image by a matrix, at twice the resolution; edges are reflected.

    The margin is the largest that can be reflected, whatever the matrices are: an exact one would have to be read from
    the device.

    Args:
        images: ``[N, C, H, W]``.
        inverse: ``[N, 3, 3]``, from a pixel of the result to one of the image, both counted from the centre.
        taps: of the low-pass filter, such as ``SYM6``.

    Returns:
        Like ``images``.
    """
    count, channels, height, width = images.shape
    edge = len(taps) // 4
    images = F.pad(images, (width - 1, width - 1, height - 1, height - 1), mode="reflect")
    images = upsample(images, taps)
    size = (count, channels, 2 * (height + 2 * edge), 2 * (width + 2 * edge))
    grid = F.affine_grid(_at_twice_the_resolution(inverse, images.shape, size), list(size), align_corners=False)
    return downsample(grid_sample(images, grid), taps, crop=2 * edge, flip=True)


def _at_twice_the_resolution(inverse: Tensor, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """Matrices ``[N, 2, 3]`` that do the same to the coordinates of ``affine_grid``, which go from -1 to 1.

    A pixel of the target lies at half its number plus a quarter in the picture's own pixels, since the filter has no
    centre of its own; a pixel of the picture lies at twice its number less a half in the source.

    Args:
        inverse: ``[N, 3, 3]``, in the picture's own pixels.
        source, target: shapes of the images that are sampled, and of the result.
    """
    x, y, shift = inverse[:, :2].unbind(2)
    columns = [x * (target[3] / 4), y * (target[2] / 4), shift + (x + y) / 4]
    rows = torch.stack(columns, 2) * 4
    across, down = rows.unbind(1)
    across, down = across / source[3], down / source[2]
    across[:, 2] -= 1 / source[3]
    down[:, 2] -= 1 / source[2]
    return torch.stack([across, down], 1)


def grid_sample(images: Tensor, grid: Tensor) -> Tensor:
    """torch's bilinear ``grid_sample``, zeros outside, differentiable in the images any number of times.

    torch itself has had a second derivative only lately; R1 through an augmentation needs one.

    Args:
        images: ``[N, C, H, W]``.
        grid: ``[N, H', W', 2]`` in [-1, 1]; it gets no gradient.
    """
    sampled = _Sample.apply(images, grid.detach())
    assert isinstance(sampled, Tensor)
    return sampled


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradient, grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transposed map, whose own gradient is sampling again: sampling is linear in the images."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # Of the images only the shape counts where the grid gets no gradient.
        images = gradient.new_zeros(()).expand(shape)
        spread = torch.ops.aten.grid_sampler_2d_backward(gradient, images, grid, 0, 0, False, [True, False])
        return spread[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradient, grid), None, None
