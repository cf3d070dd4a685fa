"""Losses that compare pictures place by place: features of an encoder, smoothness, photorealism."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of features (Gatys et al. 2016, eq. 1, but a mean where they halve a sum).

    Args:
        features, target: [N, C, H, W].

    Returns:
        float32 scalar.
    """
    return F.mse_loss(features.float(), target.float())


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels (anisotropic; Rudin et al. 1992, Johnson et al. 2016).

    Args:
        images: [N, C, H, W]; a side of one pixel has no neighbours and adds nothing.

    Returns:
        float32 scalar: the sum of the means along both sides.
    """
    images = images.float()
    differences = [images.diff(dim=dim).abs() for dim in (2, 3)]
    return sum((d.mean() for d in differences if d.numel()), images.new_zeros(()))
