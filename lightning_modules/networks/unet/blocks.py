"""The residual block that Song's U-Net and ADM are made of, and its self-attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.unet.layers import BOX, Conv2d, GroupNorm, Linear, Resample
from lightning_modules.networks.unet.plan import BlockPlan


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common.

    Args:
        embedding: length of the embedding of noise level and class.
        scale_and_shift: the embedding scales and shifts the normalised maps (ADM); otherwise it is added to them before
            they are normalised (DDPM++).
        residual_scale: factor of each sum of a block's branches.
        epsilon: of the group norms.
        taps: of the filter that resamples.
        project_resampled: a block that resamples also convolves its skip branch.
        head_channels: channels of one head of the attention; None: there is a single head.
        dropout: share of the activations that training drops.
    """

    embedding: int
    scale_and_shift: bool
    residual_scale: float = 1.0
    epsilon: float = 1e-5
    taps: tuple[int, ...] = BOX
    project_resampled: bool = False
    head_channels: int | None = None
    dropout: float = 0.0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm, SiLU and a skip branch, conditioned on an embedding; then attention.

    Args:
        plan: channels, resampling and attention.
        style: the rest.
    """

    def __init__(self, plan: BlockPlan, style: BlockStyle) -> None:
        super().__init__()
        before = plan.before + plan.skip
        self.style = style
        self.norm_in = GroupNorm(before, style.epsilon)
        self.resample = Resample(plan.resampling, style.taps)
        self.conv_in = Conv2d(before, plan.after, 3)
        self.condition = Linear(style.embedding, plan.after * (2 if style.scale_and_shift else 1))
        self.norm_out = GroupNorm(plan.after, style.epsilon)
        self.conv_out = Conv2d(plan.after, plan.after, 3)
        projected = before != plan.after or (style.project_resampled and plan.resampling != "keep")
        self.skip = Conv2d(before, plan.after, 1) if projected else None
        self.attention = Attention(plan.after, style) if plan.attention else None

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Maps after the block.

        Args:
            x: ``[N, before, H, W]``.
            embedding: ``[N, embedding]``, at least float32.
            skip: the encoder's map ``[N, skip, H, W]``, exactly when the plan has one.

        Returns:
            ``[N, after, side, side]`` in the dtype of ``x``.
        """
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        scale = self.style.residual_scale
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        condition = self.condition(embedding)[:, :, None, None]
        # In place where a convolution's result is used once: no backward pass reads it.
        if self.style.scale_and_shift:
            factor, shift = condition.chunk(2, dim=1)
            h = torch.addcmul(shift.to(h.dtype), self.norm_out(h), (factor + 1).to(h.dtype))
        else:
            h = self.norm_out(h.add_(condition.to(h.dtype)))
        h = self.conv_out(F.dropout(F.silu(h), self.style.dropout, self.training), gain=scale)
        x = self.resample(x)
        h = h.add_(x, alpha=scale) if self.skip is None else h.add_(self.skip(x, gain=scale))
        return h if self.attention is None else self.attention(h)


class Attention(nn.Module):
    """Self-attention over the pixels of a map, with a residual connection.

    ``to_qkv`` has the rows of all queries, then of all keys, then of all values, each head after head.

    Args:
        channels: C.
        style: of the network's blocks.
    """

    def __init__(self, channels: int, style: BlockStyle) -> None:
        super().__init__()
        self.heads = channels // (style.head_channels or channels)
        self.scale = style.residual_scale
        self.norm = GroupNorm(channels, style.epsilon)
        self.to_qkv = Linear(channels, 3 * channels)
        self.project = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to the same shape."""
        attended = self.project(attend(self.to_qkv(as_tokens(self.norm(x))), self.heads), gain=self.scale)
        return (x if self.scale == 1 else x * self.scale) + as_maps(attended, x)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Attention of tokens to each other.

    Args:
        qkv: queries, keys and values ``[N, L, 3 C]``, in this order, each head after head.
        heads: number of heads, which divides C.

    Returns:
        ``[N, L, C]``, head after head.
    """
    query, key, value = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def as_tokens(maps: Tensor) -> Tensor:
    """Maps ``[N, C, H, W]`` as rows of pixels ``[N, H W, C]``."""
    return maps.flatten(2).transpose(1, 2)


def as_maps(tokens: Tensor, like: Tensor) -> Tensor:
    """Rows of pixels ``[N, H W, C]`` as maps of the height and width of ``like``."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
