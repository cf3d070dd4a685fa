"""Parts of a diffusion transformer: attention over tokens, blocks with adaptive normalisation, positions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import like_weights

TokenNorm = Literal["layer", "rms"]

#: Added to the variance (or mean square) of a token, as in the authors' code.
EPSILON = 1e-6
#: Numbers that a time is embedded as before its MLP, and the longest period of theirs.
TIME_FREQUENCIES, MAX_PERIOD = 256, 10_000
#: Base of the wavelengths of rotary positions: that of Heo et al. 2024 for grids of a few dozen tokens a side.
ROTARY_BASE = 100.0


class TokenAttention(nn.Module):
    """Multi-head self-attention over tokens [N, T, D], by the fused kernels of ``scaled_dot_product_attention``.

    Args:
        width: D, a multiple of ``heads``.
        heads: number of heads.
        norm: kind of normalisation of queries and keys, used with ``qk_norm``.
        qk_norm: normalise each query and key (Henry et al. 2020, arXiv:2010.04245; Dehghani et al. 2023,
            arXiv:2302.05442), with a learned scale: logits cannot grow without bound.
    """

    def __init__(self, width: int, heads: int, *, norm: TokenNorm = "layer", qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = token_norm(norm, width // heads, learned=True) if qk_norm else None
        self.key_norm = token_norm(norm, width // heads, learned=True) if qk_norm else None
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Maps ``[N, T, D]`` to the same shape; ``rotation``: see ``rotary_angles``, None: positions are not used."""
        query, key, value = (
            self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # [N, heads, T, D/heads]
        if self.query_norm is not None and self.key_norm is not None:
            # In the weights' precision, also under autocast.
            query = self.query_norm(like_weights(query, self.query_norm))
            key = self.key_norm(like_weights(key, self.key_norm))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        attended = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        return self.output(attended.transpose(1, 2).flatten(2))


class TokenMLP(nn.Module):
    """Two layers with a GELU (in its tanh form) between: ``[N, T, D] -> [N, T, D]`` by ``hidden`` numbers a token."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps each token by itself."""
        return self.output(F.gelu(self.expand(x), approximate="tanh"))


class DiTBlock(nn.Module):
    """Attention and MLP, each normalised, scaled, shifted and gated by the condition (adaLN-zero).

    The gates start at 0, so that a block starts as the identity.

    Args:
        width: numbers of a token, and of the condition.
        heads: of the attention.
        mlp_ratio: hidden numbers of the MLP for each number of a token.
        norm: of tokens, without learned scales.
        qk_norm: see ``TokenAttention``.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float = 4.0, norm: TokenNorm = "layer", qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = token_norm(norm, width)
        self.attention = TokenAttention(width, heads, norm=norm, qk_norm=qk_norm)
        self.norm2 = token_norm(norm, width)
        self.mlp = TokenMLP(width, int(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Tokens ``[N, T, D]`` under the condition ``[N, D]``; ``rotation``: see ``rotary_angles``."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, 2)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), rotation)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class DiTOutput(nn.Module):
    """Tokens to their patches' numbers, modulated by the condition; starts as 0.

    Args:
        width: numbers of a token, and of the condition.
        out_features: numbers of a patch.
        norm: of tokens, without learned scales.
    """

    def __init__(self, width: int, out_features: int, *, norm: TokenNorm = "layer") -> None:
        super().__init__()
        self.norm = token_norm(norm, width)
        self.linear = nn.Linear(width, out_features)
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[N, T, D]`` and ``[N, D]`` to ``[N, T, out_features]``."""
        shift, scale = self.modulation(F.silu(condition)).unsqueeze(1).chunk(2, 2)
        return self.linear(modulate(self.norm(x), shift, scale))


class TimeEmbedding(nn.Module):
    """The time ``[N]`` as ``[N, width]``: cosines and sines of 128 frequencies, then two layers with a SiLU between.

    It is computed in the weights' own precision whatever the autocast: neighbouring times of 1000 would be one in bf16.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(TIME_FREQUENCIES, width)
        self.second = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """``[N] -> [N, width]``."""
        with torch.autocast(time.device.type, enabled=False):
            waves = time_waves(time, TIME_FREQUENCIES).to(self.first.weight.dtype)
            return self.second(F.silu(self.first(waves)))


def time_waves(time: Tensor, features: int) -> Tensor:
    """Cosines, then sines, of a time at ``features / 2`` frequencies from 1 down to nearly 1 / 10000.

    Args:
        time: ``[N]``, of any unit; usually in [0, 1000].
        features: an even number.

    Returns:
        ``[N, features]``, float32 or better.
    """
    time = time.to(torch.promote_types(time.dtype, torch.float32))
    half = features // 2
    exponents = torch.arange(half, dtype=time.dtype, device=time.device) / half
    angles = time[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], 1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``."""
    return x * (1 + scale) + shift


def token_norm(kind: TokenNorm, features: int, *, learned: bool = False) -> nn.Module:
    """Normalisation over the last dimension.

    Args:
        kind: ``layer`` (Ba et al. 2016) or ``rms`` (Zhang and Sennrich 2019, arXiv:1910.07467).
        features: size of that dimension.
        learned: with a learned scale (and, of ``layer``, a bias).

    Raises:
        ValueError: an unknown kind.
    """
    match kind:
        case "layer":
            return nn.LayerNorm(features, eps=EPSILON, elementwise_affine=learned)
        case "rms":
            return nn.RMSNorm(features, eps=EPSILON, elementwise_affine=learned)
    raise ValueError(f"norm {kind!r} is unknown; choose layer or rms")


def grid_positions(side: int, features: int) -> Tensor:
    """Fixed positions of a square grid's places: sines and cosines of the column, then of the row.

    Args:
        side: places along a side; they are numbered row by row.
        features: numbers of a position, a multiple of 4.

    Returns:
        float32 ``[side * side, features]``.
    """
    place = torch.arange(side, dtype=torch.float64)
    quarter = features // 4
    angles = place[:, None] * MAX_PERIOD ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # [side, features / 2]
    columns, rows = waves.expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).float()


def rotary_angles(side: int, features: int) -> Tensor:
    """By how much rotary positions (RoPE) turn each pair of numbers of a query or key, at each place of a square grid.

    Su et al. 2021, arXiv:2104.09864; for two dimensions as in Heo et al. 2024, arXiv:2403.13298 (axial): half of the
    pairs turn by the row, half by the column, so that logits depend on the offset of two places alone.

    Args:
        side: places along a side; they are numbered row by row.
        features: numbers of a head, a multiple of 4.

    Returns:
        Cosines and sines, float32 ``[2, side * side, features / 2]``.
    """
    place = torch.arange(side, dtype=torch.float64)
    quarter = features // 4
    angles = place[:, None] * ROTARY_BASE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = angles[:, None].expand(-1, side, -1), angles.expand(side, -1, -1)
    both = torch.cat([rows, columns], 2).flatten(0, 1)
    return torch.stack([both.cos(), both.sin()]).float()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns the pairs (i, i + D/2) of ``x`` ``[..., T, D]`` by the angles of ``rotary_angles``; float32 or better."""
    cosine, sine = rotation.to(torch.promote_types(rotation.dtype, torch.float32))
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
