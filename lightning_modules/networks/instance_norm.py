"""Instance normalisation: plain, and conditional for several styles of one network (Dumoulin et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.losses.style import mean_std
from lightning_modules.networks.precision import in_full_precision


class InstanceNorm(nn.Module):
    """Instance norm without scale and shift (Ulyanov et al. 2016), computed in float32 or better."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape and dtype."""
        # torch's own instance norm (2.14) gives wrong gradients of a single picture in channels-last on a CPU.
        return F.group_norm(in_full_precision(x), x.shape[1]).to(x.dtype)


class ConditionalInstanceNorm(nn.Module):
    """Instance norm with a scale and a shift for each of ``styles`` styles, mixed as the call asks.

    One style makes it the plain instance norm of Ulyanov et al. 2017. Statistics are fp32 islands.

    Args:
        channels: of the map.
        styles: number K of styles.
    """

    def __init__(self, channels: int, styles: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))
        #: Mean and standard deviation to normalise by, [N, C, 1, 1]: a whole picture's, when the map is of a tile.
        self.given: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        """Normalises a map.

        Args:
            x: [N, C, h, w].
            mix: shares of the styles, with sums of 1: [N, K, 1, 1], or of each place [N, K, h, w].
        """
        mean, std = mean_std(x) if self.given is None else self.given
        weight = torch.einsum("nkhw,kc->nchw", mix, self.weight.float())
        bias = torch.einsum("nkhw,kc->nchw", mix, self.bias.float())
        with torch.autocast(x.device.type, enabled=False):
            scale = weight / std
            return torch.addcmul((bias - mean * scale).to(x.dtype), x, scale.to(x.dtype))


def adain(content: Tensor, target_mean: Tensor, target_std: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang and Belongie 2017, eq. 8): content's features with a style's statistics.

    Args:
        content: [N, C, H, W].
        target_mean, target_std: of ``mean_std`` of the style's features.

    Returns:
        Like ``content``, in its dtype.
    """
    mean, std = mean_std(content)
    return ((content.float() - mean) / std * target_std + target_mean).to(content.dtype)
