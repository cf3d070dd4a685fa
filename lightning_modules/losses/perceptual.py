"""Losses that compare pictures place by place: features of an encoder, smoothness, photorealism."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.style import mean_std


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of features (Gatys et al. 2016, eq. 1, but a mean where they halve a sum).

    Args:
        features, target: [N, C, H, W].

    Returns:
        float32 scalar.
    """
    return F.mse_loss(features.float(), target.float())


def normalized_content_loss(features: Tensor, target: Tensor) -> Tensor:
    """``content_loss`` of features with mean 0 and standard deviation 1 in each channel: free of style (StyTr2).

    Args:
        features, target: [N, C, H, W].

    Returns:
        float32 scalar.
    """
    (mean, std), (target_mean, target_std) = mean_std(features), mean_std(target)
    return F.mse_loss((features.float() - mean) / std, (target.float() - target_mean) / target_std)


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


def relative_feature_loss(features: Tensor, target: Tensor) -> Tensor:
    """Squared difference of features as a share of the target's squares, so that layers of any scale weigh the same.

    Args:
        features, target: [N, C, H, W].

    Returns:
        float32 scalar: the mean over the batch of ||f - t||² / ||t||².
    """
    features, target = features.float().flatten(1), target.float().flatten(1)
    # Means, since sums over a large map overflow nothing then.
    return ((features - target).square().mean(1) / (target.square().mean(1) + 1e-8)).mean()
