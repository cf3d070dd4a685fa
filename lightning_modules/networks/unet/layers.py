"""Layers of U-Nets that compute in the precision of their input, whatever that of their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.unet.plan import Resampling, group_count

#: Filters by which maps are resampled: a box, and the wider one of NCSN++.
BOX = (1, 1)
WIDE = (1, 3, 3, 1)


class Linear(nn.Linear):
    """``nn.Linear`` in the precision of its input."""

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """``[..., in] -> [..., out]``, times ``gain``, which costs less than to multiply the result by it."""
        return F.linear(x, *scaled(self, x.dtype, gain))


class Conv2d(nn.Conv2d):
    """Convolution in the precision of its input, padded by zeros so that the side stays; ``kernel`` is odd."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """``[N, in, H, W] -> [N, out, H, W]``, times ``gain``, which costs less than to multiply the result by it."""
        return F.conv2d(x, *scaled(self, x.dtype, gain), padding=self.kernel_size[0] // 2)


def scaled(layer: nn.Linear | nn.Conv2d, dtype: torch.dtype, gain: float) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias times ``gain``, in another precision."""
    weight, bias = layer.weight, layer.bias
    if gain != 1:
        weight, bias = weight * gain, None if bias is None else bias * gain
    return weight.to(dtype), None if bias is None else bias.to(dtype)


class GroupNorm(nn.GroupNorm):
    """Group norm (Wu & He 2018, arXiv:1803.08494) of 32 groups, or of four channels each where that gives fewer.

    The result has the precision of the input; torch sums up the statistics of half precisions in fp32. Autocast has
    to be off, or it would widen the maps.
    """

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__(group_count(channels), channels, eps=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``[N, C, H, W]``."""
        return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Resample(nn.Module):
    """Halves or doubles the side of maps, each channel filtered by itself, as in StyleGAN2 (arXiv:1912.04958).

    Args:
        resampling: ``keep`` makes this the identity.
        taps: of the filter along one axis, symmetric and even in number; they are normalised to a sum of 1.
    """

    kernel: Tensor

    def __init__(self, resampling: Resampling, taps: Sequence[int] = BOX) -> None:
        super().__init__()
        self.resampling = resampling
        self.box = tuple(taps) == BOX
        self.padding = (len(taps) - 1) // 2
        # Exact in every precision, as the sums are powers of two.
        self.register_buffer("kernel", filter_kernel(taps) * (4 if resampling == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, H / 2, W / 2]``, ``[N, C, 2 H, 2 W]`` or itself; H and W are even to halve."""
        if self.resampling == "keep":
            return x
        if self.box:
            # The same as the filter, and far faster on CPUs.
            return F.avg_pool2d(x, 2) if self.resampling == "down" else F.interpolate(x, scale_factor=2.0)
        convolve = F.conv2d if self.resampling == "down" else F.conv_transpose2d
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return convolve(x, kernel, stride=2, padding=self.padding, groups=x.shape[1])


def filter_kernel(taps: Sequence[int]) -> Tensor:
    """The two-dimensional kernel ``[T, T]`` of a filter's taps, with sum 1."""
    row = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(row, row) / row.sum().square()


def position_embedding(noise: Tensor, channels: int, *, endpoint: bool) -> Tensor:
    """Cosines and sines of noise levels, wavelengths in geometric sequence (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        noise: ``[N]``.
        channels: C, even and at least 4.
        endpoint: frequencies from 1 to 1/10000, that one included (DDPM); otherwise the sequence ends before it (ADM).

    Returns:
        ``[N, C]`` in the dtype of ``noise``: C / 2 cosines, then C / 2 sines.
    """
    count = channels // 2
    exponents = torch.arange(count, dtype=noise.dtype, device=noise.device) / (count - endpoint)
    return waves(noise, torch.exp(-math.log(10000.0) * exponents))


def waves(noise: Tensor, frequencies: Tensor) -> Tensor:
    """Cosines, then sines, ``[N, 2 F]``, of noise levels ``[N]`` times frequencies ``[F]`` in radians."""
    angles = torch.outer(noise, frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
