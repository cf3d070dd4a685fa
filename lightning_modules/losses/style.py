"""Style losses: distances between statistics of an encoder's features, whatever their places.

All statistics are float32 islands: computed in fp32 whatever the autocast, and scaled before the products, since sums
over a large picture overflow fp16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Added to variances, as in the AdaIN paper's code.
EPSILON = 1e-5


def gram(features: Tensor) -> Tensor:
    """Gram matrix G = F Fᵀ / (H W), Gatys et al. 2016, with Johnson et al.'s (2016) further 1 / C left out.

    Args:
        features: [N, C, H, W].

    Returns:
        float32 [N, C, C]: mean products of two channels over the places. It does not grow with the picture.
    """
    return weighted_gram(features, torch.tensor(1 / (features.shape[2] * features.shape[3]), device=features.device))


def weighted_gram(features: Tensor, place: Tensor) -> Tensor:
    """Gram matrix Σ_p place_p F_p F_pᵀ of a region or a part of a picture (Gatys et al. 2017, eq. 7).

    Args:
        features: [N, C, H, W].
        place: weights of the places, [H, W], or one for all of them; constants.

    Returns:
        float32 [N, C, C].
    """
    gram: Tensor = _WeightedGram.apply(features, place)
    return gram


class _WeightedGram(torch.autograd.Function):
    """``weighted_gram`` and its gradient by the features, (S + Sᵀ) F with S the gradient by G.

    As G is symmetric that is one product, where autograd would take two and add them; it comes in the memory format of
    the features, and nothing is kept but these.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, place: Tensor) -> Tensor:
        if place.requires_grad:
            raise ValueError("the weights of the places are constants; they have no gradient")
        ctx.save_for_backward(features, place)
        with torch.autocast(features.device.type, enabled=False):
            rows = features.float().flatten(2)
            weights = place.float().flatten()
            if len(weights) == 1:
                return (rows @ rows.transpose(1, 2)) * weights
            return (rows * weights) @ rows.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        features, place = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            slope = slope + slope.transpose(1, 2)
            weights = place.float().flatten()
            if len(weights) == 1:
                slope = slope * weights
            # bf16 has fp32's range, and the gradient is rounded to it in any case; fp16 has neither room nor precision.
            dtype = torch.bfloat16 if features.dtype == torch.bfloat16 else torch.float32
            rows, slope = features.to(dtype).flatten(2), slope.to(dtype)
            if features.is_contiguous(memory_format=torch.channels_last):
                gradient = (rows.transpose(1, 2) @ slope).transpose(1, 2)
            else:
                gradient = slope @ rows
            if len(weights) > 1:
                gradient *= weights
            return gradient.view(features.shape).to(features.dtype), None


def gram_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of Gram matrices over their entries, averaged over the batch.

    In Gatys et al. 2016, eq. 4: E = 1 / (4 N² M²) Σ (F Fᵀ - A Aᵀ)² with N channels and M places; that is a quarter of
    this.

    Args:
        features: [N, C, H, W].
        target: a style's ``gram``, [C, C] or [N, C, C].

    Returns:
        float32 scalar.
    """
    return (gram(features) - target.float()).square().mean()


def relative_gram_loss(features: Tensor, target: Tensor) -> Tensor:
    """``gram_loss`` as a share of the target's mean square, ||G - A||² / ||A||²: 1 for features that are all zero.

    So one weight serves all layers and styles, whose Gram matrices differ by orders of magnitude.

    Args:
        features: [N, C, H, W].
        target: each picture's style: its ``gram``, [N, C, C].

    Returns:
        float32 scalar: the mean over the batch.
    """
    target = target.float()
    return ((gram(features) - target).square().sum((1, 2)) / target.square().sum((1, 2))).mean()


def mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the places: float32 [N, C, 1, 1] each.

    The variance is Bessel-corrected with ``EPSILON`` added, as in Huang and Belongie's (2017) code. A map of a single
    place has none.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        variance, mean = torch.var_mean(features, (2, 3), keepdim=True, correction=int(features[0, 0].numel() > 1))
        return mean, (variance + EPSILON).sqrt()


def statistics_loss(features: Tensor, target_mean: Tensor, target_std: Tensor) -> Tensor:
    """AdaIN's style loss at one layer (Huang and Belongie 2017, eq. 13): mean squared differences of both statistics.

    Args:
        features: [N, C, H, W].
        target_mean, target_std: of ``mean_std``.

    Returns:
        float32 scalar.
    """
    mean, std = mean_std(features)
    return F.mse_loss(mean, target_mean.expand_as(mean)) + F.mse_loss(std, target_std.expand_as(std))


def sliced_wasserstein_loss(features: Tensor, target: Tensor, directions: Tensor) -> Tensor:
    """Distance of two pictures' distributions of feature vectors (Heitz et al. 2021, "A Sliced Wasserstein Loss").

    Unlike the Gram matrix it sees the whole distribution, not its second moments alone: along each direction both are
    projected and sorted, and the sorted values compared. Two pictures of different sizes are compared by quantiles.

    Args:
        features: [N, C, H, W].
        target: [N, C, H', W'] or [1, C, H', W'].
        directions: unit vectors, [K, C]; draw new ones in each step (``random_directions``).

    Returns:
        float32 scalar: mean squared difference over quantiles and directions.
    """
    ours, theirs = _quantiles(features, target, directions)
    return (ours - theirs).square().mean()


def relative_sliced_wasserstein_loss(features: Tensor, target: Tensor, directions: Tensor) -> Tensor:
    """``sliced_wasserstein_loss`` as a share of what features that are all zero have, as in ``relative_gram_loss``.

    Args:
        features: [N, C, H, W] or [N, C, places].
        target: each picture's style, of such a shape.
        directions: unit vectors, [K, C].

    Returns:
        float32 scalar: the mean over the batch.
    """
    ours, theirs = _quantiles(features, target, directions)
    return ((ours - theirs).square().mean((1, 2)) / theirs.square().mean((1, 2))).mean()


def _quantiles(features: Tensor, target: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast(features.device.type, enabled=False):
        ours = (directions.float() @ features.float().flatten(2)).sort(dim=2).values
        theirs = (directions.float() @ target.float().flatten(2)).sort(dim=2).values
        if theirs.shape[2] != ours.shape[2]:
            theirs = F.interpolate(theirs, ours.shape[2], mode="linear", align_corners=True)
        return ours, theirs


def random_directions(noise: Tensor) -> Tensor:
    """Unit vectors, uniform on the sphere, out of standard normal noise [K, C]."""
    return noise / noise.norm(dim=1, keepdim=True)
