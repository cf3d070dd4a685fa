"""R3GAN (Huang et al. 2024, arXiv:2501.05441): a relativistic loss with R1 and R2, and no tricks."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from gesso.common.ranges import Count, NonNegative, Whole
from gesso.common.schedules import Schedule
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.adversarial import AdversarialFamily
from lightning_modules.losses.adversarial import AdversarialLoss
from lightning_modules.networks.r3gan import R3Discriminator, R3Generator, R3Options

#: The authors' for CIFAR-10: Adam without momentum, both numbers on half a period of a cosine.
OPTIMIZER = OptimizerOptions(lr=2e-4, beta1=0.0, beta2=0.9, schedule="cosine", final_lr=5e-5, final_beta2=0.99)


class R3GAN(AdversarialFamily):
    """R3GAN: each generated image is compared with a real one, and both penalties are part of every step.

    Where double backward cannot run (``--model.compile``, a network at ZeRO's stage 3), set ``r1_gamma`` and
    ``r2_gamma`` to 0, and ``first_order_gamma`` and ``first_order_fake_gamma`` instead.

    Args:
        resolution: height and width of the images in pixels, a power of two from 4 on.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        num_classes: 0: unconditional; else the label's embedding is joined to z, and is what the discriminator's
            features are multiplied with.
        generator, discriminator: options of the networks.
        loss: ``rpgan``, unless another one is to be compared with it.
        r1_gamma, r2_gamma: weights of the penalties on real and on generated images; by default they fall from 0.05 to
            a tenth during the training.
        generator_optimizer, discriminator_optimizer: options of each optimizer.
        options: those of ``AdversarialFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "discriminator")

    def __init__(
        self,
        *,
        resolution: Count = 32,
        channels: int = 3,
        latent_dim: Count = 64,
        num_classes: Whole = 0,
        generator: R3Options = R3Options(),
        discriminator: R3Options = R3Options(),
        loss: AdversarialLoss = "rpgan",
        r1_gamma: NonNegative | Schedule = Schedule(0.05, 0.005),
        r2_gamma: NonNegative | Schedule = Schedule(0.05, 0.005),
        generator_optimizer: OptimizerOptions = OPTIMIZER,
        discriminator_optimizer: OptimizerOptions = OPTIMIZER,
        **options: Any,
    ) -> None:
        super().__init__(loss=loss, r1_gamma=r1_gamma, r2_gamma=r2_gamma, **options)
        self.save_hyperparameters()
        self.resolution, self.channels = resolution, channels
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        sizes = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        self.generator = R3Generator(generator, latent_dim=latent_dim, **sizes)
        self.discriminator = R3Discriminator(discriminator, **sizes)

    def decoded(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        return super().decoded(generator, latents, labels).clamp(-1, 1)
