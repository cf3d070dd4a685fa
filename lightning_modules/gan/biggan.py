"""BigGAN (Brock et al. 2019, arXiv:1809.11096): a residual GAN of classes, whose z is told to every block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, Share, Whole
from lightning_modules.core.deployment import Deployable, Layout
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.adversarial import AdversarialFamily
from lightning_modules.losses.adversarial import AdversarialLoss
from lightning_modules.networks.biggan import (
    BigGANDiscriminator,
    BigGANDiscriminatorOptions,
    BigGANGenerator,
    BigGANGeneratorOptions,
)

#: Where a truncated normal distribution ends, as in the authors' published generators.
BOUND = 2.0


class BigGAN(AdversarialFamily):
    """BigGAN: hinge loss, spectral norm, a class embedding that all norms share, and a hierarchical z.

    Args:
        resolution: height and width of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z; with a hierarchical z, a multiple of the number of its parts: 4 at 32 px, 5 at 64,
            6 at 128, 7 at 256.
        num_classes: 0: unconditional; else batch norm is told the class, and the discriminator projects on it.
        generator, discriminator: options of the networks.
        loss: ``hinge``, unless another one is to be compared with it.
        n_critic: steps of the discriminator per step of the generator, each on new images.
        truncation_psi: of the samples: below 1, z is of a normal distribution that ends at 2, times this: fewer kinds,
            better pictures. 1: none.
        generator_optimizer, discriminator_optimizer: options of each optimizer.
        options: those of ``AdversarialFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "discriminator")

    def __init__(
        self,
        *,
        resolution: Count = 128,
        channels: int = 3,
        latent_dim: Count = 120,
        num_classes: Whole = 0,
        generator: BigGANGeneratorOptions = BigGANGeneratorOptions(),
        discriminator: BigGANDiscriminatorOptions = BigGANDiscriminatorOptions(),
        loss: AdversarialLoss = "hinge",
        n_critic: Count = 2,
        truncation_psi: Share = 1.0,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=5e-5, beta1=0.0, beta2=0.999),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.0, beta2=0.999),
        **options: Any,
    ) -> None:
        super().__init__(loss=loss, n_critic=n_critic, **options)
        self.save_hyperparameters()
        self.resolution, self.channels = resolution, channels
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.truncation_psi = truncation_psi
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        sizes: dict[str, int] = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        self.generator = BigGANGenerator(generator, latent_dim=latent_dim, **sizes)
        self.discriminator = BigGANDiscriminator(discriminator, **sizes)

    def latents(self, index: Tensor, *, seed: int) -> Tensor:
        """See ``LatentFamily``; with a truncation each z is moved inwards, and keeps its number."""
        z = super().latents(index, seed=seed)
        return z if self.truncation_psi == 1 else self.truncation_psi * truncated(z, BOUND)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: latents, truncated before, and labels to images."""
        made = super().deployable(part, layout)
        return replace(made, inputs={**made.inputs, "latents": replace(made.inputs["latents"], bound=BOUND)})

    def sample_with(self, changes: Mapping[str, object]) -> dict[str, object]:
        """See ``Abilities.sample_with``: ``truncation_psi``."""
        return self.change_sampling(changes, "truncation_psi")

    def sampled(self) -> dict[str, object]:
        """See ``Abilities.sampled``: the truncation, where there is any."""
        return {} if self.truncation_psi == 1 else {"truncation_psi": self.truncation_psi}


def truncated(z: Tensor, bound: float) -> Tensor:
    """Numbers of N(0, 1) as numbers of the normal distribution that ends at -bound and bound, in the same order."""
    outside = 0.5 * math.erfc(bound / math.sqrt(2))
    return torch.special.ndtri(outside + (1 - 2 * outside) * torch.special.ndtr(z.double())).to(z.dtype)
