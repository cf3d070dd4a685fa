"""Layers of StyleGAN 1 (Karras et al. 2019, arXiv:1812.04958)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import filtered, setup_filter
from lightning_modules.networks.stylegan2.layers import EqualizedLinear

#: The filter of StyleGAN 1's networks, before it is normalised.
BLUR = (1.0, 2.0, 1.0)
#: Of variances, in instance norm.
EPSILON = 1e-8


class ScaledConv2d(nn.Module):
    """Convolution of equalised learning rate: weights ~ N(0, 1) are scaled to He's variance when they are used.

    Where it doubles the side, pixels are repeated, convolved, and blurred; where it halves the side, they are blurred,
    convolved, and averaged. Repeating or averaging is part of the kernel, which then has four rows and columns. (From
    128 px on the authors' joined kernel of a doubled side is mirrored; here kernels have one orientation at all sides.)

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel.
        gain: of the activation that follows: sqrt(2) of leaky ReLU, 1 of none.
        resample: ``double`` or ``halve`` the side, for kernels of 3; None: it stays.
        padding: zeros around the input where the side stays; None: as many as keep it.
        bias: whether there is one.
    """

    taps: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        gain: float = math.sqrt(2),
        resample: Literal["double", "halve"] | None = None,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.resample, self.padding = resample, kernel // 2 if padding is None else padding
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("taps", setup_filter(BLUR), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or twice or half of H and W."""
        weight = (self.weight * self.scale).to(x.dtype)
        if self.resample == "double":
            x = F.conv_transpose2d(x, _spread(weight).flip(2, 3).transpose(0, 1), stride=2, padding=1)
            x = filtered(x, self.taps, (1, 1))
        elif self.resample == "halve":
            x = F.conv2d(filtered(x, self.taps, (1, 1)), _spread(weight) / 4, stride=2, padding=1)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        return x if self.bias is None else x + self.bias.to(x.dtype).view(1, -1, 1, 1)


def _spread(weight: Tensor) -> Tensor:
    """A kernel, then sums of 2 x 2 pixels, as one kernel: ``[O, I, K, K]`` to ``[O, I, K + 1, K + 1]``."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[:, :, 1:, 1:] + padded[:, :, :-1, 1:] + padded[:, :, 1:, :-1] + padded[:, :, :-1, :-1]


class StyledLayer(nn.Module):
    """What follows each convolution of the synthesis network: noise, bias, leaky ReLU, instance norm, and w's style.

    The last two are adaptive instance normalisation (AdaIN, Huang & Belongie 2017, arXiv:1703.06868).

    Args:
        convolution: without a bias; None: the layer is given the learned constant.
        channels: of its result.
        w_dim: dimensions of w.
        resolution: side of its result in pixels.
    """

    noise_constant: Tensor

    def __init__(self, convolution: ScaledConv2d | None, channels: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        #: Of w: by how much the scale of each channel differs from 1, and what is added to it.
        self.affine = EqualizedLinear(w_dim, 2 * channels)
        self.register_buffer("noise_constant", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | Literal["constant", "none"]) -> Tensor:
        """Features ``[N, inputs, H, W]`` and w ``[N, w_dim]`` to ``[N, channels, resolution, resolution]``.

        Args:
            x: features.
            w: the style's latent.
            noise: ``[N, 1, resolution, resolution]``, ``constant`` or ``none``.
        """
        if self.convolution is not None:
            x = self.convolution(x)
        if not isinstance(noise, str) or noise == "constant":
            drawn = self.noise_constant if isinstance(noise, str) else noise
            x = x + (drawn * self.noise_strength.view(1, -1, 1, 1)).to(x.dtype)
        x = F.leaky_relu(x + self.bias.to(x.dtype).view(1, -1, 1, 1), 0.2)
        wide, (scale, shift) = in_full_precision(x), in_full_precision(self.affine(w))[:, :, None, None].chunk(2, 1)
        variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
        return ((wide - mean) * (variance + EPSILON).rsqrt() * (scale + 1) + shift).to(x.dtype)
