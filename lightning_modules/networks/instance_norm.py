"""Instance normalisation: plain, and conditional for several styles of one network (Dumoulin et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.losses.style import EPSILON, mean_std
from lightning_modules.networks.precision import in_full_precision


class InstanceNorm(nn.Module):
    """Instance norm without scale and shift (Ulyanov et al. 2016), computed in float32 or better."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape and dtype."""
        # torch's own instance norm (2.14) gives wrong gradients of a single picture in channels-last on a CPU.
        return F.group_norm(in_full_precision(x), x.shape[1]).to(x.dtype)

    def folded(self) -> FoldedInstanceNorm:
        """See ``folding``."""
        return FoldedInstanceNorm()


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

    def folded(self) -> FoldedInstanceNorm:
        """See ``folding``; shares of the styles are then the same everywhere."""
        return FoldedInstanceNorm(self.weight.detach(), self.bias.detach(), corrected=True)


class FoldedInstanceNorm(nn.Module):
    """Instance norm in the one operation that every runtime has, for use alone.

    Args:
        weight, bias: ``[styles, C]``; None: neither.
        corrected: the variance is Bessel's, as ``mean_std`` has it; runtimes know the other one.
    """

    def __init__(self, weight: Tensor | None = None, bias: Tensor | None = None, *, corrected: bool = False) -> None:
        super().__init__()
        self.corrected = corrected
        self.weight = None if weight is None else nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor, mix: Tensor | None = None) -> Tensor:
        """``[N, C, H, W]`` to the same shape; ``mix``: shares of the styles, ``[N, styles, 1, 1]``."""
        if self.weight is None or self.bias is None or mix is None:
            return F.instance_norm(x, eps=EPSILON)
        factor, epsilon = self._correction(x) if self.corrected else (1.0, EPSILON)
        if len(self.weight) == 1:
            return F.instance_norm(x, weight=self.weight[0] * factor, bias=self.bias[0], eps=epsilon)
        weight, bias = mix.flatten(1) @ self.weight * factor, mix.flatten(1) @ self.bias
        return F.instance_norm(x, eps=epsilon) * weight[:, :, None, None] + bias[:, :, None, None]

    def _correction(self, x: Tensor) -> tuple[Tensor | float, float]:
        # sqrt(v n / (n - 1) + e) is sqrt(v + e (n - 1) / n) times sqrt(n / (n - 1)).
        places = x.shape[2] * x.shape[3]
        if isinstance(places, int):
            share = max(places - 1, 1) / places
            return share**0.5, EPSILON * share
        # Of any size: the constant inside of the root cannot follow, by one part in n of what is next to nothing.
        count = torch.scalar_tensor(places, dtype=x.dtype, device=x.device)
        return ((count - 1) / count).sqrt(), EPSILON


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
