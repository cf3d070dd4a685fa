"""The KL term of a VAE taken apart, and its total correlation: what latents tell of one another.

With q(z) the mean of the posteriors q(z|x) over all N training images, the mean KL divergence from the prior is

    I(x; z) + KL(q(z) ‖ Π q(z_j)) + Σ KL(q(z_j) ‖ p(z_j)):

mutual information of images and latents, total correlation, and the dimension-wise KL (Chen et al. 2018,
arXiv:1802.04942). All in nats, in float32 or better whatever the autocast.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_modules.losses.adversarial import discriminator_loss
from lightning_modules.networks.precision import in_full_precision

#: How q(z) is estimated from the B images of a batch: see ``log_importance_weights``.
Sampling = Literal["weighted", "stratified"]


class KLTerms(NamedTuple):
    """Means over a batch, scalars; their sum is an estimate of the mean KL divergence from N(0, I)."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


def decompose_kl(z: Tensor, mean: Tensor, log_variance: Tensor, *, images: int, sampling: Sampling) -> KLTerms:
    """The three terms of the KL divergence, from one draw of each posterior of a batch.

    Args:
        z: ``[B, D]``: row i is drawn from the Gaussian posterior of image i.
        mean, log_variance: ``[B, D]`` of the posteriors, natural logarithm.
        images: N, how many images there are to train on.
        sampling: see ``log_importance_weights``.

    Raises:
        ValueError: fewer than two images in the batch, or an unknown sampling.
    """
    z, mean, log_variance = (in_full_precision(values) for values in (z, mean, log_variance))
    # [B, B, D]: of the draw i under the posterior j.
    each = log_density(z[:, None], mean[None], log_variance[None])
    own = log_density(z, mean, log_variance).sum(1)
    prior = log_density(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    weights = log_importance_weights(sampling, len(z), images).to(each)
    joint = torch.logsumexp(weights + each.sum(2), 1)
    marginals = torch.logsumexp(weights[:, :, None] + each, 1).sum(1)
    return KLTerms((own - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


def log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log of the density of N(mean, exp(log_variance)) at ``z``, of each element by itself."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + (z - mean).square() * torch.exp(-log_variance))


def log_importance_weights(sampling: Sampling, batch: int, images: int) -> Tensor:
    """Logs of weights w, so that q(z_i) is estimated as Σ_j w_ij q(z_i|x_j) over a batch's images j.

    Args:
        sampling: ``weighted``: 1 / (N B) for all (minibatch weighted sampling: too low by a factor that is nearly
            constant). ``stratified``: 1 / N for an image itself, (N - B + 1) / (N (B - 1)) for one of the others, the
            next, and 1 / (B - 1) for the rest (minibatch stratified sampling: right on average over all batches).
        batch: B.
        images: N; at least B.

    Returns:
        float64 ``[B, B]``.

    Raises:
        ValueError: fewer than two images in the batch, or an unknown sampling.
    """
    images = max(images, batch)
    if batch < 2:
        raise ValueError("total correlation is estimated from the images of a batch: take two or more at a time")
    match sampling:
        case "weighted":
            return torch.full((batch, batch), -math.log(images * batch), dtype=torch.float64)
        case "stratified":
            others = batch - 1
            weights = torch.full((batch, batch), 1 / others, dtype=torch.float64)
            row = torch.arange(batch)
            weights[row, row] = 1 / images
            weights[row, (row + 1) % batch] = (images - others) / (images * others)
            return weights.log()
    raise ValueError(f"sampling {sampling!r} is unknown; choose weighted or stratified")


def permuted(z: Tensor, noise: Tensor) -> Tensor:
    """Draws of Π q(z_j) out of draws of q(z): each latent is dealt anew to the rows of a batch (FactorVAE).

    Args:
        z: ``[B, D]``.
        noise: ``[B, D]``, uniform; its order in each column is the permutation.
    """
    return z.gather(0, noise.argsort(0))


def density_ratio_loss(joint_logits: Tensor, permuted_logits: Tensor) -> Tensor:
    """Loss of FactorVAE's discriminator: the mean cross-entropy of telling q(z) from Π q(z_j).

    The logit of the best one is log q(z) / Π q(z_j), whose mean is the total correlation (Kim and Mnih 2018,
    arXiv:1802.05983).

    Args:
        joint_logits: of draws of q(z), any shape.
        permuted_logits: of draws of Π q(z_j), any shape.
    """
    return 0.5 * discriminator_loss("vanilla", joint_logits, permuted_logits)
