"""Blocks of the swapping autoencoder (Park et al. 2020, arXiv:2007.00653), out of StyleGAN2's layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import filtered, setup_filter
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, bias_act, modulated_conv2d
from lightning_modules.networks.stylegan2.mapping import normalize_2nd_moment


def unit_vectors(x: Tensor) -> Tensor:
    """Codes of length 1 along dimension 1, at least float32."""
    x = in_full_precision(x)
    return x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()


class EncoderBlock(nn.Module):
    """Two convolutions with mirrored borders that halve the side, beside a skip connection; a filter of [1, 2, 1].

    Args:
        inputs, outputs: channels.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = EncoderConv2d(inputs, inputs)
        self.halving = EncoderConv2d(inputs, outputs, halve=True)
        self.skip = EqualizedConv2d(inputs, outputs, 1, bias=False)
        self.register_buffer("taps", setup_filter((1.0, 2.0, 1.0)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H/2, W/2]``."""
        skipped = self.skip(filtered(x, self.taps, (1, 0))[:, :, ::2, ::2])
        return (self.halving(self.convolution(x)) + skipped) * math.sqrt(0.5)


class EncoderConv2d(nn.Module):
    """Convolution 3x3 of equalised learning rate, with mirrored borders or none, and leaky ReLU.

    Args:
        inputs, outputs: channels.
        halve: whether it filters and halves the side.
        borders: whether there are any; without them nothing is filtered, and the side 2 n + 1 or 2 n + 2 becomes n.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False, borders: bool = True) -> None:
        super().__init__()
        self.halve, self.borders = halve, borders
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("taps", setup_filter((1.0, 2.0, 1.0)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W."""
        if self.borders:
            around = (2, 1, 2, 1) if self.halve else (1, 1, 1, 1)
            x = F.pad(x, around, mode="reflect")
            x = filtered(x, self.taps, (0, 0)) if self.halve else x
        weight = (self.weight / math.sqrt(self.weight[0].numel())).to(x.dtype)
        return bias_act(F.conv2d(x, weight, stride=2 if self.halve else 1), self.bias, "lrelu")


class TextureConv2d(nn.Module):
    """Convolution 3x3 modulated by the texture, noise, bias and leaky ReLU.

    Unlike StyleGAN2's, styles are brought to a mean square of 1, and weights to unit norm, each by themselves.

    Args:
        inputs, outputs: channels.
        texture_dim: length of the texture code.
        doubles: whether it doubles the side.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, texture_dim: int, *, doubles: bool = False) -> None:
        super().__init__()
        self.doubles = doubles
        self.affine = EqualizedLinear(texture_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        # Not a scalar, which ZeRO cannot shard.
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, x: Tensor, texture: Tensor, noise: Tensor | None) -> Tensor:
        """``[N, inputs, H, W]`` and a texture ``[N, texture_dim]`` to ``[N, outputs, H, W]``, or twice H and W.

        Args:
            x: features.
            texture: code.
            noise: ``[N, 1, H, W]`` of the result's size; None: none.
        """
        styles = normalize_2nd_moment(in_full_precision(self.affine(texture)))
        weight = in_full_precision(self.weight) / math.sqrt(self.weight[0].numel())
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        x = modulated_conv2d(x, weight, styles, demodulate=False, upsample_taps=self.taps if self.doubles else None)
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        return bias_act(x, self.bias, "lrelu")


class DecoderBlock(nn.Module):
    """Two modulated convolutions beside a skip connection; the first may double the side.

    Args:
        inputs, outputs: channels.
        texture_dim: length of the texture code.
        doubles: whether the block doubles the side.
    """

    def __init__(self, inputs: int, outputs: int, texture_dim: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.first = TextureConv2d(inputs, outputs, texture_dim, doubles=doubles)
        self.second = TextureConv2d(outputs, outputs, texture_dim)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = EqualizedConv2d(inputs, outputs, 1, bias=doubles, activation="lrelu" if doubles else "linear")

    def forward(self, x: Tensor, texture: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or twice H and W; ``first`` and ``second`` are noise."""
        skipped = self.skip(x)
        if self.doubles:
            skipped = F.interpolate(skipped, scale_factor=2, mode="bilinear", align_corners=False)
        return (skipped + self.second(self.first(x, texture, first), texture, second)) * math.sqrt(0.5)


class CriticBlock(nn.Module):
    """Two convolutions 3x3 beside a skip connection, which halve the side or keep it.

    Args:
        inputs, outputs: channels.
        halve: whether the side is halved.
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool) -> None:
        super().__init__()
        self.convolution = EqualizedConv2d(inputs, inputs, 3, activation="lrelu")
        self.second = EqualizedConv2d(inputs, outputs, 3, activation="lrelu", halve=halve)
        self.skip = EqualizedConv2d(inputs, outputs, 1, bias=False, halve=halve)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W."""
        return self.skip(x, math.sqrt(0.5)) + self.second(self.convolution(x), math.sqrt(0.5))
