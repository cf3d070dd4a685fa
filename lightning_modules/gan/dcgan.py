"""DCGAN and its kin: one generator, one discriminator, and the losses of the GAN literature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.latent import LatentFamily
from lightning_modules.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss
from lightning_modules.losses.penalties import clip_weights_, gradient_penalty, r1_penalty
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.dcgan import DCGANDiscriminator, DCGANGenerator


class DCGAN(LatentFamily):
    """Deep convolutional GAN (Radford et al. 2016), with the later remedies as options.

    Args:
        resolution: height and width of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        width: channels of the widest-resolution layer; deeper layers have multiples of it.
        num_classes: 0: unconditional; else projection discriminator (Miyato and Koyama 2018), conditional batch norm.
        loss: ``vanilla`` (Goodfellow et al. 2014, minimax), ``non_saturating``, ``lsgan`` (Mao et al. 2017), ``wgan``
            (Arjovsky et al. 2017, clipped weights), ``wgan_gp`` (Gulrajani et al. 2017) or ``hinge`` (Miyato 2018).
        lambda_gp: weight of WGAN-GP's gradient penalty.
        weight_clip: bound c of the critic's weights for ``wgan``.
        r1_gamma: weight gamma of the R1 penalty gamma/2 E|grad D(x)|^2 (Mescheder et al. 2018); 0: none.
        r1_interval: apply R1 every so many steps, that much stronger (lazy regularisation, Karras et al. 2020).
        n_critic: steps of the discriminator for each step of the generator, each on fresh images.
        spectral_norm: spectral normalisation of the discriminator (Miyato et al. 2018).
        generator_spectral_norm: and of the generator (Zhang et al. 2019).
        attention_resolution: feature-map size with self-attention (SAGAN, Zhang et al. 2019); 0: none.
        normalization: the discriminator's; WGAN-GP forbids ``batch``, whose penalty is of single images.
        generator_lr, discriminator_lr: Adam's learning rates.
        beta1, beta2: Adam's momenta.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        options: those of ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        latent_dim: int = 128,
        width: int = 64,
        num_classes: int = 0,
        loss: AdversarialLoss = "non_saturating",
        lambda_gp: float = 10.0,
        weight_clip: float = 0.01,
        r1_gamma: float = 0.0,
        r1_interval: int = 1,
        n_critic: int = 1,
        spectral_norm: bool = False,
        generator_spectral_norm: bool = False,
        attention_resolution: int = 0,
        normalization: Literal["batch", "layer", "none"] = "batch",
        generator_lr: float = 2e-4,
        discriminator_lr: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if loss == "wgan_gp" and normalization == "batch":
            raise ValueError("wgan_gp penalises the gradient of single images: set normalization to layer or none")
        if n_critic < 1 or r1_interval < 1:
            raise ValueError("n_critic and r1_interval must be 1 or more")
        check_weights(lambda_gp=lambda_gp, r1_gamma=r1_gamma)
        self.save_hyperparameters()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.generator_optimizer = OptimizerOptions(lr=generator_lr, beta1=beta1, beta2=beta2)
        self.discriminator_optimizer = OptimizerOptions(lr=discriminator_lr, beta1=beta1, beta2=beta2)
        self.generator = DCGANGenerator(
            latent_dim=latent_dim,
            resolution=resolution,
            channels=channels,
            width=width,
            num_classes=num_classes,
            attention_resolution=attention_resolution,
            spectral_norm=generator_spectral_norm,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.discriminator = DCGANDiscriminator(
            resolution=resolution,
            channels=channels,
            width=width,
            num_classes=num_classes,
            attention_resolution=attention_resolution,
            spectral_norm=spectral_norm,
            normalization=normalization,
            gradient_checkpointing=gradient_checkpointing,
        )

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator",)

    def penalised(self) -> tuple[str, ...]:
        return ("discriminator",) if self.hparams["loss"] == "wgan_gp" or self.hparams["r1_gamma"] > 0 else ()

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(latents, labels).float()

    def step(self, batch: Batch) -> None:
        self.update("discriminator", self.discriminator_losses, batch)
        if self.hparams["loss"] == "wgan":
            with self.edited("discriminator"):
                clip_weights_(self.discriminator, self.hparams["weight_clip"])
        if (self.steps_done + 1) % self.hparams["n_critic"] == 0:
            self.update("generator", self.generator_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss on real and generated images, and the penalties whose turn it is."""
        real, labels = batch["image"], self._labels(batch)
        fake = self._fake(batch)
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        adversarial = discriminator_loss(self.hparams["loss"], real_logits, fake_logits)
        losses = {"loss": adversarial, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
        if self.hparams["loss"] == "wgan_gp":
            alpha = self.rand(len(real), 1, 1, 1)
            losses["gradient_penalty"] = gradient_penalty(self._critic(labels), real, fake, alpha)
            losses["loss"] = losses["loss"] + self.hparams["lambda_gp"] * losses["gradient_penalty"]
        gamma, interval = self.hparams["r1_gamma"], self.hparams["r1_interval"]
        if gamma > 0 and self.steps_done % interval == 0:
            losses["r1"] = r1_penalty(self._critic(labels), real)
            losses["loss"] = losses["loss"] + interval * gamma / 2 * losses["r1"]
        return losses

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss of freshly generated images."""
        logits = self.discriminator(self._fake(batch), self._labels(batch))
        return {"loss": generator_loss(self.hparams["loss"], logits)}

    def held_out_losses(self, batch: Batch) -> Losses:
        # Far below the training images' mean: the discriminator has learnt its images by heart.
        return {"real_logits": self.discriminator(batch["image"], self._labels(batch)).mean()}

    def _fake(self, batch: Batch) -> Tensor:
        return self.generator(self.randn(len(batch["image"]), self.latent_dim), self._labels(batch))

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.num_classes else None

    def _critic(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        return lambda images: self.discriminator(images, labels)
