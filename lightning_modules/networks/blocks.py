"""Blocks that double or halve the side of a feature map [N, C, H, W], and the widths of a stack of them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.attention import SelfAttention
from lightning_modules.networks.batch_norm import BatchNorm2d, batch_norm
from lightning_modules.networks.folding import fold_scale_

Normalization = Literal["batch", "layer", "none"]

RESOLUTIONS = (32, 64, 128, 256)


class UpBlock(nn.Module):
    """Doubles the side: transposed convolution 4x4, (conditional) batch norm, ReLU, optional self-attention."""

    def __init__(self, in_channels: int, out_channels: int, *, num_classes: int = 0, attention: bool = False) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        self.norm: nn.Module = batch_norm(out_channels, num_classes)
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``[N, in, H, W] -> [N, out, 2H, 2W]``; ``labels`` (int64 ``[N]``) exactly when there are classes."""
        x = self.convolution(x)
        x = self.norm(x) if labels is None else self.norm(x, labels)
        return self.attention(F.relu(x, inplace=True))

    def fold_(self) -> None:
        """See ``folding``."""
        self.norm = fold_norm_(self.convolution, self.norm)


class DownBlock(nn.Module):
    """Halves the side: convolution 4x4, normalisation, LeakyReLU(0.2), optional self-attention.

    Differentiable twice, for gradient penalties.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, normalization: Normalization = "batch", attention: bool = False
    ) -> None:
        super().__init__()
        bias = normalization == "none"
        self.convolution = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)
        self.norm = _normalization(normalization, out_channels)
        self.attention = SelfAttention(out_channels, double_backward=True) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W] -> [N, out, H/2, W/2]``."""
        return self.attention(F.leaky_relu(self.norm(self.convolution(x)), 0.2, inplace=True))

    def fold_(self) -> None:
        """See ``folding``."""
        self.norm = fold_norm_(self.convolution, self.norm)


def fold_norm_(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Folds a batch norm behind a layer into that, and returns what is left of it; other norms stay."""
    if not isinstance(norm, BatchNorm2d):
        return norm
    fold_scale_(layer, *norm.scale_and_shift())
    return nn.Identity()


def stage_channels(resolution: int, width: int) -> list[int]:
    """Channels of the feature maps of sides ``resolution / 2, ..., 8, 4``: doubling from ``width`` to ``8 * width``.

    Raises:
        ValueError: a resolution or width that the networks don't have.
    """
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution {resolution} is not supported; choose one of {', '.join(map(str, RESOLUTIONS))}")
    if width < 1:
        raise ValueError(f"width {width} is not positive; 64 is the usual one")
    return [width * min(2**stage, 8) for stage in range(resolution.bit_length() - 3)]


def _normalization(kind: Normalization, features: int) -> nn.Module:
    match kind:
        case "batch":
            return batch_norm(features)
        case "layer":
            # Layer norm over C, H and W with one scale a channel; its kernel reads channels-last maps in place.
            return nn.GroupNorm(1, features)
        case "none":
            return nn.Identity()
    raise ValueError(f"normalization {kind!r} is unknown; choose batch, layer or none")
