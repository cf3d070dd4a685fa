"""The beta-TCVAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gesso.common.ranges import NonNegative
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.family import Losses
from lightning_modules.losses.total_correlation import Sampling, decompose_kl
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.vae import draw_latents


class BetaTCVAE(VAE):
    """A VAE whose KL term is taken apart, with the total correlation weighed by itself (Chen et al. 2018).

    Minimises reconstruction + alpha * I(x; z) + beta * total correlation + gamma * dimension-wise KL (arXiv:1802.04942,
    equation 4), where the last three, estimated from the images that go through the networks at a time, add up to the
    VAE's KL divergence. Losses on held-out images are the VAE's.

    Args:
        alpha: weight of the mutual information of images and latents.
        beta: weight of the total correlation: what the latents tell of one another.
        gamma: weight of the KL divergence of each latent from N(0, 1).
        sampling: estimate of the latents' density over all images: ``weighted`` or ``stratified``; see
            ``losses.total_correlation``.
        options: those of ``VAE`` but its ``beta``, and of ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 6.0,
        gamma: NonNegative = 1.0,
        sampling: Sampling = "weighted",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(alpha=alpha, beta=beta, gamma=gamma)
        self.term_weights, self.sampling = (alpha, beta, gamma), sampling
        self.set_size = 0

    def take_set_size(self, images: int) -> None:
        self.set_size = images

    def regularization(self, mean: Tensor, log_variance: Tensor, noise: Tensor) -> tuple[Tensor, Losses]:
        z = draw_latents(mean, log_variance, noise)
        # As long as the size of the set is not known, it is the batch.
        terms = decompose_kl(z, mean, log_variance, images=max(self.set_size, len(z)), sampling=self.sampling)
        weighted = [weight * term for weight, term in zip(self.term_weights, terms, strict=True)]
        return torch.stack(weighted).sum(), terms._asdict()
