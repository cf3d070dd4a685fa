"""Layers that keep magnitudes: the root mean square of activations and weights stays near 1 (EDM2, arXiv:2312.02696).

Constants that the paper multiplies maps by are here multiplied into the weights of a convolution nearby, which are
smaller: the results are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import at_least_float32
from lightning_modules.networks.unet.blocks import as_maps, as_tokens, attend
from lightning_modules.networks.unet.layers import Resample
from lightning_modules.networks.unet.plan import BlockPlan

#: Added to magnitudes before something is divided by them.
EPSILON = 1e-4
#: Factor that brings SiLU of N(0, 1) to magnitude 1 (equation 81).
SILU_GAIN = 1 / 0.596
#: Share of the residual branch in a sum with the main branch, and of the attention's.
RESIDUAL_SHARE = 0.3
#: Activations are clipped to this, for half precisions.
CLIP = 256.0


def unit_magnitude(x: Tensor, dim: int) -> Tensor:
    """``x`` with a root mean square of 1 along a dimension (equation 30: pixel norm)."""
    wide = at_least_float32(x.dtype)
    magnitude = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=wide) / math.sqrt(x.shape[dim])
    return x / (magnitude + EPSILON).to(x.dtype)


def sum_gains(share: float) -> tuple[float, float]:
    """Factors of two maps whose sum keeps magnitudes, where the second has this share (equation 88)."""
    norm = math.hypot(1 - share, share)
    return (1 - share) / norm, share / norm


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """Maps side by side along the channels, each with half the influence, whatever their channels (equation 103)."""
    total = a.shape[1] + b.shape[1]
    gains = [math.sqrt(total / (2 * maps.shape[1])) for maps in (a, b)]
    return torch.cat([a * gains[0], b * gains[1]], dim=1)


class MPConv(nn.Module):
    """A convolution or linear layer without bias, whose output neurons have weights of unit length (equation 47).

    What is stored may have any length: forward normalises it, with gradients through that, and changes nothing.

    Args:
        in_channels, out_channels: of maps, or of vectors.
        kernel: side of the kernel, odd; 0: a linear layer.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 0) -> None:
        super().__init__()
        self.kernel = kernel
        self.fan_in = in_channels * max(kernel, 1) ** 2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *[kernel] * 2 * (kernel > 0)))

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """``[N, in, H, W] -> [N, out, H, W]`` or ``[..., in] -> [..., out]``, as precise as ``x``, times ``gain``."""
        weight = self.weight.to(at_least_float32(self.weight.dtype))
        weight = (weight * (gain / self._lengths(weight))).to(x.dtype)
        return F.conv2d(x, weight, padding=self.kernel // 2) if self.kernel else F.linear(x, weight)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Gives the stored weights a root mean square of 1 for each output neuron."""
        wide = self.weight.to(at_least_float32(self.weight.dtype))
        self.weight.copy_(wide * (math.sqrt(self.fan_in) / self._lengths(wide)))

    def _lengths(self, weight: Tensor) -> Tensor:
        dims = tuple(range(1, weight.ndim))
        return torch.linalg.vector_norm(weight, dim=dims, keepdim=True) + EPSILON * math.sqrt(self.fan_in)


class MPFourier(nn.Module):
    """Random Fourier features of noise levels, with magnitude 1 (equation 75).

    Args:
        channels: number of features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, noise: Tensor) -> Tensor:
        """``[N] -> [N, channels]`` in the dtype of ``noise``."""
        angles = torch.outer(noise, self.frequencies.to(noise.dtype)) + self.phases.to(noise.dtype)
        return angles.cos() * math.sqrt(2)


@dataclass(frozen=True)
class MPStyle:
    """What all blocks of a network have in common.

    Args:
        embedding: length of the embedding of noise level and class.
        head_channels: channels of one head of the attention.
        dropout: share of the activations that training drops.
    """

    embedding: int
    head_channels: int
    dropout: float


class MPBlock(nn.Module):
    """Two 3x3 convolutions beside a main branch, conditioned on an embedding; then attention (figure 21).

    The encoder's blocks normalise their pixels at the start, the decoder's do not.

    Args:
        plan: channels, resampling and attention.
        style: the rest.
    """

    def __init__(self, plan: BlockPlan, style: MPStyle) -> None:
        super().__init__()
        before = plan.before + plan.skip
        self.decoder = plan.decoder
        self.dropout = style.dropout
        self.resample = Resample(plan.resampling)
        self.main = MPConv(before, plan.after, 1) if before != plan.after else None
        self.conv_in = MPConv(before if plan.decoder else plan.after, plan.after, 3)
        self.condition = MPConv(style.embedding, plan.after)
        self.condition_gain = nn.Parameter(torch.zeros(1))
        self.conv_out = MPConv(plan.after, plan.after, 3)
        self.attention = MPAttention(plan.after, style.head_channels) if plan.attention else None

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Maps after the block.

        Args:
            x: ``[N, before, H, W]``.
            embedding: ``[N, embedding]``, at least float32.
            skip: the encoder's map ``[N, skip, H, W]``, exactly when the plan has one.

        Returns:
            ``[N, after, side, side]`` in the dtype of ``x``, in [-256, 256].
        """
        x = self.resample(x if skip is None else concatenate(x, skip))
        if not self.decoder:
            x = unit_magnitude(x if self.main is None else self.main(x), dim=1)
        main, residual = sum_gains(RESIDUAL_SHARE)
        y = self.conv_in(F.silu(x), gain=SILU_GAIN)
        factor = 1 + self.condition(embedding, gain=self.condition_gain)
        y = F.silu(y * factor[:, :, None, None].to(y.dtype))
        y = self.conv_out(F.dropout(y, self.dropout, self.training), gain=SILU_GAIN * residual)
        # In place where a convolution's result is used once: no backward pass reads it.
        projected = None if self.main is None or not self.decoder else self.main(x, gain=main)
        y = y.add_(x, alpha=main) if projected is None else y.add_(projected)
        if self.attention is not None:
            y = self.attention(y)
        return y.clamp(-CLIP, CLIP)


class MPAttention(nn.Module):
    """Self-attention over the pixels of a map, whose queries, keys and values have magnitude 1, beside a main branch.

    ``to_qkv`` has the rows of all queries, then of all keys, then of all values, each head after head.

    Args:
        channels: C, a multiple of ``head_channels``.
        head_channels: of one head.
    """

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.to_qkv = MPConv(channels, 3 * channels)
        self.project = MPConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to the same shape."""
        main, residual = sum_gains(RESIDUAL_SHARE)
        qkv = unit_magnitude(self.to_qkv(as_tokens(x)).unflatten(2, (3 * self.heads, -1)), dim=3)
        attended = self.project(attend(qkv.flatten(2), self.heads), gain=residual)
        return x * main + as_maps(attended, x)
