"""FactorVAE."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import NonNegative
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.losses.total_correlation import density_ratio_loss, permuted
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.latent_discriminator import LatentDiscriminator, LatentDiscriminatorOptions
from lightning_modules.networks.vae import draw_latents


class FactorVAE(VAE):
    """A VAE with a penalty on the total correlation of its latents (Kim and Mnih 2018, arXiv:1802.05983).

    Minimises reconstruction + beta * KL + gamma * E D(z). The discriminator D learns to tell latents that were drawn
    together from latents each of which is another image's of the batch; its mean logit estimates the total correlation.

    Args:
        gamma: weight of the total correlation.
        discriminator: options of the discriminator.
        discriminator_optimizer: options of its optimizer.
        options: those of ``VAE`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = (*VAE.fixed_options, "discriminator")

    def __init__(
        self,
        *,
        gamma: NonNegative = 35.0,
        discriminator: LatentDiscriminatorOptions = LatentDiscriminatorOptions(),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.5, beta2=0.9),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(gamma=gamma)
        self.gamma, self.discriminator_optimizer = gamma, discriminator_optimizer
        self.discriminator = LatentDiscriminator(discriminator, latent_dim=self.latent_dim)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {**super().optimization(), "discriminator": self.discriminator_optimizer}

    def step(self, batch: Batch) -> None:
        super().step(batch)
        self.update("discriminator", self.discriminator_losses, batch)

    def regularization(self, mean: Tensor, log_variance: Tensor, noise: Tensor) -> tuple[Tensor, Losses]:
        weighted, terms = super().regularization(mean, log_variance, noise)
        total_correlation = self.discriminator(draw_latents(mean, log_variance, noise)).mean()
        return weighted + self.gamma * total_correlation, {**terms, "total_correlation": total_correlation}

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Cross-entropy of telling new draws of the batch's latents from the same ones dealt anew."""
        images = batch["image"]
        with torch.no_grad():
            mean, log_variance = self.autoencoder.encoder(images)
            z = draw_latents(mean, log_variance, self.randn(len(images), self.latent_dim))
            dealt = permuted(z, self.rand(len(images), self.latent_dim))
        joint, apart = self.discriminator(z), self.discriminator(dealt)
        return {"loss": density_ratio_loss(joint, apart), "joint_logits": joint.mean(), "dealt_logits": apart.mean()}
