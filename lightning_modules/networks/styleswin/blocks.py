"""StyleSwin's transformer block: attention in windows, half of the heads in shifted ones (arXiv:2112.10762)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.layers import EqualizedLinear

#: Added to logits of pixels that are no neighbours but for the shift.
APART = -100.0
#: Of variances, in instance norm.
EPSILON = 1e-5


class WindowAttention(nn.Module):
    """Self-attention inside of square windows, with a learned bias for each relative position.

    Args:
        side: of the feature map.
        window: side of a window, which divides ``side``.
        heads: number of heads.
        shift: pixels by which the windows are moved to the right and down; what they then hold of two opposite borders
            does not see each other.
    """

    #: Which bias a pair of pixels of a window has, int64 [window^2, window^2].
    places: Tensor
    #: ``APART`` or 0, [windows, 1, window^2, window^2]; None without a shift.
    apart: Tensor | None

    def __init__(self, side: int, window: int, heads: int, *, shift: int) -> None:
        super().__init__()
        self.side, self.window, self.heads, self.shift = side, window, heads, shift
        self.biases = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        pixels = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        between = pixels[:, None] - pixels[None] + window - 1
        self.register_buffer("places", between[..., 0] * (2 * window - 1) + between[..., 1], persistent=False)
        self.register_buffer("apart", self._apart() if shift else None, persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries, keys and values ``[N, side, side, C]`` to what is attended to, of the same shape."""
        if self.shift:
            q, k, v = (torch.roll(x, (-self.shift, -self.shift), (1, 2)) for x in (q, k, v))
        q, k, v = (self._windows(x) for x in (q, k, v))
        logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
        logits = in_full_precision(logits) + in_full_precision(self.biases[self.places].permute(2, 0, 1))
        if self.apart is not None:
            logits = logits + self.apart.to(logits.dtype)
        x = self._together(logits.softmax(-1).to(v.dtype) @ v)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x

    def _windows(self, x: Tensor) -> Tensor:
        """``[N, side, side, C]`` to ``[N, windows, heads, window^2, C / heads]``."""
        count, along = x.shape[0], self.side // self.window
        x = x.reshape(count, along, self.window, along, self.window, self.heads, -1)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(count, along**2, self.heads, self.window**2, -1)

    def _together(self, x: Tensor) -> Tensor:
        count, along = x.shape[0], self.side // self.window
        x = x.reshape(count, along, along, self.heads, self.window, self.window, -1)
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, self.side, self.side, -1)

    def _apart(self) -> Tensor:
        # Three strips along each axis: those in front of the last window, and the two parts of that one.
        strips = torch.zeros(self.side, dtype=torch.int64)
        strips[self.side - self.window : self.side - self.shift] = 1
        strips[self.side - self.shift :] = 2
        regions = (strips[:, None] * 3 + strips).view(self.side // self.window, self.window, -1, self.window)
        regions = regions.permute(0, 2, 1, 3).reshape(-1, self.window**2)
        return (regions[:, None] != regions[:, :, None]).float().mul(APART)[:, None]


class SwinBlock(nn.Module):
    """Attention in windows, then two linear layers, each behind an instance norm that w scales and shifts (AdaIN).

    Args:
        channels: C.
        side: of the feature map.
        window: largest side of a window.
        heads: number of heads; the first half has plain windows, the second one shifted ones.
        w_dim: dimensions of w.
        mlp_ratio: features between the two linear layers, in times C.
    """

    def __init__(self, channels: int, side: int, *, window: int, heads: int, w_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        window = min(window, side)
        shift = window // 2 if side > window else 0
        #: Scale and shift of both norms.
        self.affine = EqualizedLinear(w_dim, 4 * channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.plain = WindowAttention(side, window, heads // 2, shift=0)
        self.shifted = WindowAttention(side, window, heads // 2, shift=shift)
        self.project = nn.Linear(channels, channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``[N, side, side, C]`` and w ``[N, w_dim]`` to features of the same shape."""
        with torch.autocast(w.device.type, enabled=False):
            styles = self.affine(w)[:, None, None].chunk(4, -1)
        parts = self.qkv(modulated_norm(x, styles[0], styles[1])).chunk(3, -1)
        first, second = zip(*(part.chunk(2, -1) for part in parts), strict=True)
        x = x + self.project(torch.cat([self.plain(*first), self.shifted(*second)], -1))
        hidden: Tensor = self.mlp(modulated_norm(x, styles[2], styles[3]))
        return x + hidden


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm of ``x`` ``[N, H, W, C]`` in float32, times ``scale``, plus ``shift``, both ``[N, 1, 1, C]``."""
    wide = in_full_precision(x)
    variance, mean = torch.var_mean(wide, (1, 2), correction=0, keepdim=True)
    return ((wide - mean) * (variance + EPSILON).rsqrt() * scale + shift).to(x.dtype)


def sinusoids(channels: int, side: int) -> Tensor:
    """Positions as waves of many lengths, ``[side, side, channels]``: half along the width, half along the height.

    Args:
        channels: a multiple of 4, from 8 on.
        side: of the feature map; positions begin at 1.
    """
    count = channels // 4
    frequencies = torch.exp(torch.arange(count, dtype=torch.float64) * (-math.log(10_000) / (count - 1)))
    angles = torch.arange(1, side + 1, dtype=torch.float64)[:, None] * frequencies
    along = torch.cat([angles.sin(), angles.cos()], 1).to(torch.get_default_dtype())
    across = (side, side, channels // 2)
    return torch.cat([along[None].expand(across), along[:, None].expand(across)], 2)


class Doubling(nn.Module):
    """Doubles the side: bilinear, layer norm, a linear layer, and positions of a learned strength.

    Args:
        before, after: channels.
        side: of the result.
    """

    positions: Tensor

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(before)
        self.linear = nn.Linear(before, after, bias=False)
        self.strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("positions", sinusoids(after, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, before]`` to ``[N, 2H, 2W, after]``."""
        x = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear", align_corners=False)
        x = self.linear(self.norm(x.permute(0, 2, 3, 1)))
        return x + (self.positions * self.strength).to(x.dtype)
