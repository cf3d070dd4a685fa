"""How far two pictures are apart where places count: features of an encoder, smoothness, photorealism."""

from __future__ import annotations

import torch
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


def laplacian_loss(images: Tensor, target: Tensor, pool: int = 4) -> Tensor:
    """Difference of two pictures' Laplacians (Li et al. 2017, "Laplacian-Steered Neural Style Transfer").

    Keeps edges and fine structure where a photograph's are, whatever the colours do.

    Args:
        images, target: [N, C, H, W] in [-1, 1].
        pool: pictures are averaged over squares of so many pixels first, so that texture stays free.

    Returns:
        float32 scalar: mean squared difference.
    """
    with torch.autocast(images.device.type, enabled=False):
        return F.mse_loss(_laplacian(images, pool), _laplacian(target, pool))


def _laplacian(images: Tensor, pool: int) -> Tensor:
    # Luminance is enough, and leaves the colours free.
    grey = images.float().mean(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=images.device).view(1, 1, 3, 3)
    return F.conv2d(F.avg_pool2d(grey, pool, ceil_mode=True), kernel)
