"""Two generators between two domains of small images, and a discriminator in each: a small CycleGAN."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.translating import TranslatingFamily
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss


class PairCycle(TranslatingFamily):
    """A cycle between the domains A and B (Zhu et al. 2017): least-squares GANs, and an L1 loss of what comes back.

    Args:
        resolution: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        width: channels of the layers at full resolution.
        cycle_weight: of the cycle loss beside the adversarial ones.
        generator_optimizer, discriminator_optimizer: how each pair is optimized.
        options: those of ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        resolution: int = 32,
        channels: int = 1,
        width: int = 32,
        cycle_weight: float = 10.0,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.cycle_weight = cycle_weight
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.generator_ab, self.generator_ba = Generator(channels, width), Generator(channels, width)
        self.discriminator_a, self.discriminator_b = Discriminator(channels, width), Discriminator(channels, width)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "generator_ab": self.generator_optimizer,
            "generator_ba": self.generator_optimizer,
            "discriminator_a": self.discriminator_optimizer,
            "discriminator_b": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator_ab", "generator_ba")

    def translate(self, images: Tensor, direction: str) -> Tensor:
        return self.generator_ab(images) if direction == "a-to-b" else self.generator_ba(images)

    def step(self, batch: Batch) -> None:
        # The cycles run through both generators, which therefore step together.
        self.update(("generator_ab", "generator_ba"), self.generator_losses, batch)
        self.update("discriminator_a", self.discriminator_a_losses, batch)
        self.update("discriminator_b", self.discriminator_b_losses, batch)

    def generator_losses(self, batch: Batch) -> Losses:
        a, b = batch["image"], batch["image_b"]
        fake_b, fake_a = self.generator_ab(a), self.generator_ba(b)
        adversarial = generator_loss("lsgan", self.discriminator_a(fake_a))
        adversarial = adversarial + generator_loss("lsgan", self.discriminator_b(fake_b))
        cycle = F.l1_loss(self.generator_ba(fake_b), a) + F.l1_loss(self.generator_ab(fake_a), b)
        return {"loss": adversarial + self.cycle_weight * cycle, "adversarial": adversarial, "cycle": cycle}

    def discriminator_a_losses(self, batch: Batch) -> Losses:
        fake = self.generator_ba(batch["image_b"])
        return {"loss": discriminator_loss("lsgan", self.discriminator_a(batch["image"]), self.discriminator_a(fake))}

    def discriminator_b_losses(self, batch: Batch) -> Losses:
        fake = self.generator_ab(batch["image"])
        return {"loss": discriminator_loss("lsgan", self.discriminator_b(batch["image_b"]), self.discriminator_b(fake))}

    def held_out_losses(self, batch: Batch) -> Losses:
        return {"cycle": F.l1_loss(self.generator_ba(self.generator_ab(batch["image"])), batch["image"])}


class Generator(nn.Module):
    """Half the resolution, two residual blocks, and back: [N, C, H, W] in [-1, 1] to the same."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            )
            for _ in range(2)
        )
        self.up = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.down(images)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.up(F.interpolate(hidden, images.shape[2:])).float().tanh()


class Discriminator(nn.Sequential):
    """One logit for each patch of 18 pixels: [N, C, H, W] to [N, 1, H / 4, W / 4]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )
