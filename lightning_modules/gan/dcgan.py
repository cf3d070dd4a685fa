"""DCGAN and its kin: one generator, one discriminator, and the losses of the GAN literature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import Renamed
from lightning_modules.kinds.latent import LatentFamily
from lightning_modules.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss
from lightning_modules.losses.penalties import clip_weights_, gradient_penalty, r1_penalty
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.dcgan import DCGANDiscriminator, DCGANGenerator, DiscriminatorOptions, GeneratorOptions


class DCGAN(LatentFamily):
    """Deep convolutional GAN (Radford et al. 2016), with the later remedies as options.

    Args:
        resolution: height and width of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        num_classes: 0: unconditional; else projection discriminator (Miyato and Koyama 2018), conditional batch norm.
        loss: ``vanilla`` (Goodfellow et al. 2014, minimax), ``non_saturating``, ``lsgan`` (Mao et al. 2017), ``wgan``
            (Arjovsky et al. 2017, clipped weights), ``wgan_gp`` (Gulrajani et al. 2017) or ``hinge`` (Miyato 2018).
        lambda_gp: weight of WGAN-GP's gradient penalty.
        weight_clip: bound c of the critic's weights for ``wgan``.
        r1_gamma: weight gamma of the R1 penalty gamma/2 E|grad D(x)|^2 (Mescheder et al. 2018); 0: none.
        r1_interval: apply R1 every so many steps, that much stronger (lazy regularisation, Karras et al. 2020).
        n_critic: steps of the discriminator for each step of the generator, each on fresh images.
        generator: the network that makes images.
        discriminator: the network that judges them; WGAN-GP forbids its normalization ``batch``, since the penalty is
            of single images.
        generator_optimizer, discriminator_optimizer: how each is optimized.
        options: those of ``ImageFamily``.
    """

    renamed_options: ClassVar[Renamed] = {
        "width": ("generator.width", "discriminator.width"),
        "attention_resolution": ("generator.attention_resolution", "discriminator.attention_resolution"),
        "gradient_checkpointing": ("generator.gradient_checkpointing", "discriminator.gradient_checkpointing"),
        "spectral_norm": ("discriminator.spectral_norm",),
        "generator_spectral_norm": ("generator.spectral_norm",),
        "normalization": ("discriminator.normalization",),
        "generator_lr": ("generator_optimizer.lr",),
        "discriminator_lr": ("discriminator_optimizer.lr",),
        "beta1": ("generator_optimizer.beta1", "discriminator_optimizer.beta1"),
        "beta2": ("generator_optimizer.beta2", "discriminator_optimizer.beta2"),
    }

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        latent_dim: int = 128,
        num_classes: int = 0,
        loss: AdversarialLoss = "non_saturating",
        lambda_gp: float = 10.0,
        weight_clip: float = 0.01,
        r1_gamma: float = 0.0,
        r1_interval: int = 1,
        n_critic: int = 1,
        generator: GeneratorOptions = GeneratorOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(),
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if loss == "wgan_gp" and discriminator.normalization == "batch":
            raise ValueError(
                "wgan_gp penalises the gradient of single images: set discriminator.normalization to layer or none"
            )
        if n_critic < 1 or r1_interval < 1:
            raise ValueError("n_critic and r1_interval must be 1 or more")
        check_weights(lambda_gp=lambda_gp, r1_gamma=r1_gamma)
        self.save_hyperparameters()
        self.resolution, self.channels, self.latent_dim, self.num_classes = (
            resolution,
            channels,
            latent_dim,
            num_classes,
        )
        self.loss, self.n_critic, self.weight_clip = loss, n_critic, weight_clip
        self.lambda_gp, self.r1_gamma, self.r1_interval = lambda_gp, r1_gamma, r1_interval
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.generator = DCGANGenerator(
            generator, latent_dim=latent_dim, resolution=resolution, channels=channels, num_classes=num_classes
        )
        self.discriminator = DCGANDiscriminator(
            discriminator, resolution=resolution, channels=channels, num_classes=num_classes
        )

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator",)

    def penalised(self) -> tuple[str, ...]:
        return ("discriminator",) if self.loss == "wgan_gp" or self.r1_gamma > 0 else ()

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(latents, labels).float()

    def step(self, batch: Batch) -> None:
        self.update("discriminator", self.discriminator_losses, batch)
        if self.loss == "wgan":
            with self.edited("discriminator"):
                clip_weights_(self.discriminator, self.weight_clip)
        if (self.steps_done + 1) % self.n_critic == 0:
            self.update("generator", self.generator_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss on real and generated images, and the penalties whose turn it is."""
        real, labels = batch["image"], self._labels(batch)
        fake = self._fake(batch)
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        adversarial = discriminator_loss(self.loss, real_logits, fake_logits)
        losses = {"loss": adversarial, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
        if self.loss == "wgan_gp":
            alpha = self.rand(len(real), 1, 1, 1)
            losses["gradient_penalty"] = gradient_penalty(self._critic(labels), real, fake, alpha)
            losses["loss"] = losses["loss"] + self.lambda_gp * losses["gradient_penalty"]
        gamma, interval = self.r1_gamma, self.r1_interval
        if gamma > 0 and self.steps_done % interval == 0:
            losses["r1"] = r1_penalty(self._critic(labels), real)
            losses["loss"] = losses["loss"] + interval * gamma / 2 * losses["r1"]
        return losses

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss of freshly generated images."""
        logits = self.discriminator(self._fake(batch), self._labels(batch))
        return {"loss": generator_loss(self.loss, logits)}

    def held_out_losses(self, batch: Batch) -> Losses:
        # Far below the training images' mean: the discriminator has learnt its images by heart.
        return {"real_logits": self.discriminator(batch["image"], self._labels(batch)).mean()}

    def _fake(self, batch: Batch) -> Tensor:
        return self.generator(self.randn(len(batch["image"]), self.latent_dim), self._labels(batch))

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.num_classes else None

    def _critic(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        return lambda images: self.discriminator(images, labels)
