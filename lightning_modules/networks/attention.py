"""Self-attention over feature maps."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class SelfAttention(nn.Module):
    """Self-attention over the pixels of a feature map (SAGAN, Zhang et al. 2018, arXiv:1805.08318).

    Keys and values are max-pooled to half the side, as in the authors' code; the products are not scaled, as in the
    paper. The residual's weight ``gamma`` starts at 0, so the layer starts as the identity.

    Args:
        channels: C, a multiple of 8. Queries and keys have C / 8 channels, values C / 2.
        double_backward: allow a second differentiation (gradient penalties), which the fused attention kernels refuse.
    """

    def __init__(self, channels: int, *, double_backward: bool = False) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"self-attention needs a multiple of 8 channels, not {channels}; choose another width")
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.double_backward = double_backward

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to the same shape; H and W are even."""
        query = _tokens(self.query(x))  # [N, 1, HW, C/8]
        key = _tokens(F.max_pool2d(self.key(x), 2))  # [N, 1, HW/4, C/8]
        value = _tokens(F.max_pool2d(self.value(x), 2))  # [N, 1, HW/4, C/2]
        with sdpa_kernel(SDPBackend.MATH) if self.double_backward else nullcontext():
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended = attended.squeeze(1).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return x + self.gamma.to(x.dtype) * self.output(attended)


def check_attention_resolution(attention_resolution: int, resolution: int) -> None:
    """Raises a ValueError unless a feature map between the 4x4 one and the image has that side (0: no attention)."""
    sides = [2**power for power in range(3, resolution.bit_length() - 1)]
    if attention_resolution and attention_resolution not in sides:
        raise ValueError(
            f"attention_resolution {attention_resolution} is no feature map of a {resolution} px network; "
            f"choose 0 (none) or one of {', '.join(map(str, sides))}"
        )


def _tokens(maps: Tensor) -> Tensor:
    # One head: the fused attention kernels ask for four dimensions.
    return maps.flatten(2).transpose(1, 2).unsqueeze(1)
