"""DCGAN, with a choice of adversarial losses and penalties."""

from __future__ import annotations

from typing import Any, ClassVar

from gesso.common.ranges import Count, Whole
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import Renamed
from lightning_modules.kinds.adversarial import AdversarialFamily
from lightning_modules.kinds.pruned import PrunedFamily
from lightning_modules.networks.dcgan import DCGANDiscriminator, DCGANGenerator, DiscriminatorOptions, GeneratorOptions


class DCGAN(PrunedFamily, AdversarialFamily):
    """Deep convolutional GAN (Radford et al. 2016), with later improvements as options.

    Args:
        resolution: height and width of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        num_classes: 0: unconditional; else projection discriminator (Miyato and Koyama 2018), conditional batch norm.
        generator: options of the generator.
        discriminator: options of the discriminator; WGAN-GP does not allow its normalization ``batch``, since the
            penalty is of single images.
        pruned_from: a run with a wider generator, whose heaviest channels this one begins with (``gesso prune``).
        generator_optimizer, discriminator_optimizer: options of each optimizer.
        options: those of ``AdversarialFamily`` (losses and penalties) and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    widths: ClassVar[tuple[str, ...]] = ("generator.width",)
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
        resolution: Count = 64,
        channels: int = 3,
        latent_dim: Count = 128,
        num_classes: Whole = 0,
        generator: GeneratorOptions = GeneratorOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(),
        pruned_from: str | None = None,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.loss == "wgan_gp" and discriminator.normalization == "batch":
            raise ValueError(
                "wgan_gp penalises the gradient of single images: set discriminator.normalization to layer or none"
            )
        self.save_hyperparameters()
        self.resolution, self.channels = resolution, channels
        self.latent_dim, self.num_classes, self.pruned_from = latent_dim, num_classes, pruned_from
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.generator = DCGANGenerator(
            generator, latent_dim=latent_dim, resolution=resolution, channels=channels, num_classes=num_classes
        )
        self.discriminator = DCGANDiscriminator(
            discriminator, resolution=resolution, channels=channels, num_classes=num_classes
        )
