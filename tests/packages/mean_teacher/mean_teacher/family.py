"""An autoencoder of small images whose codes a discriminator makes Gaussian, and whose encoder has a mean teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.core.averages import Average
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.profiles import HalfLife
from lightning_modules.kinds.latent import LatentFamily
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.networks.lpips import LPIPS


class MeanTeacher(LatentFamily):
    """An adversarial autoencoder (Makhzani et al. 2015) with a mean teacher (Tarvainen and Valpola 2017).

    The encoder sees noisy images, and its moving average, the teacher, clean ones: their codes should be the same.

    Args:
        resolution: height and width of the images in pixels, a multiple of 8.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of a code.
        width: channels of the layers at half the resolution.
        noise: standard deviation of the noise on the encoder's images.
        perceptual_weight, adversarial_weight, consistency_weight: of the losses beside the L1 loss of the pixels.
        teacher_half_life_kimg: of the teacher, in thousands of images.
        autoencoder_optimizer, discriminator_optimizer: how the networks are optimized.
        options: those of ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        resolution: int = 32,
        channels: int = 1,
        latent_dim: int = 16,
        width: int = 32,
        noise: float = 0.3,
        perceptual_weight: float = 0.5,
        adversarial_weight: float = 0.1,
        consistency_weight: float = 0.1,
        teacher_half_life_kimg: float = 2.0,
        autoencoder_optimizer: OptimizerOptions = OptimizerOptions(kind="adamw", warmup_kimg=2, schedule="cosine"),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(kind="adamw", beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.latent_dim, self.noise = latent_dim, noise
        self.perceptual_weight, self.adversarial_weight = perceptual_weight, adversarial_weight
        self.consistency_weight, self.teacher_half_life_kimg = consistency_weight, teacher_half_life_kimg
        self.autoencoder_optimizer, self.discriminator_optimizer = autoencoder_optimizer, discriminator_optimizer
        self.encoder = Encoder(resolution, channels, latent_dim, width)
        self.decoder = Decoder(resolution, channels, latent_dim, width)
        self.discriminator = Discriminator(latent_dim, 4 * width)
        self.lpips: Frozen[LPIPS] | None = None

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "encoder": self.autoencoder_optimizer,
            "decoder": self.autoencoder_optimizer,
            "discriminator": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return ("decoder",)

    def own_averages(self) -> dict[str, Average]:
        return {"teacher": Average(HalfLife(self.teacher_half_life_kimg), ("encoder",))}

    def published_weights(self) -> tuple[str, ...]:
        return ("vgg16_lpips",)

    def take_weights(self, name: str, file: Path) -> None:
        # Frozen: it is in no checkpoint, no optimizer and no average.
        self.lpips = Frozen(LPIPS(file)).to(self.device)

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.decoder(latents)

    def step(self, batch: Batch) -> None:
        self.update("discriminator", self.discriminator_losses, batch)
        # What comes back has run through both networks, which therefore step together.
        self.update(("encoder", "decoder"), self.autoencoder_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        codes = self.encoder(self.noisy(batch["image"]))
        gaussian = self.randn(len(codes), self.latent_dim)
        return {"loss": discriminator_loss("non_saturating", self.discriminator(gaussian), self.discriminator(codes))}

    def autoencoder_losses(self, batch: Batch) -> Losses:
        images = batch["image"]
        codes = self.encoder(self.noisy(images))
        decoded = self.decoder(codes)
        pixels, perceptual = F.l1_loss(decoded, images), self.perceptual_distance(decoded, images)
        adversarial = generator_loss("non_saturating", self.discriminator(codes))
        consistency = F.mse_loss(codes, self.averaged("teacher", "encoder")(images))
        loss = pixels + self.perceptual_weight * perceptual
        loss = loss + self.adversarial_weight * adversarial + self.consistency_weight * consistency
        terms = {"pixels": pixels, "perceptual": perceptual, "adversarial": adversarial, "consistency": consistency}
        return {"loss": loss, **terms}

    def held_out_losses(self, batch: Batch) -> Losses:
        decoded = self.decoder(self.encoder(batch["image"]))
        return {"pixels": F.l1_loss(decoded, batch["image"])}

    def noisy(self, images: Tensor) -> Tensor:
        return images + self.noise * self.randn(len(images), *images.shape[1:])

    def perceptual_distance(self, images: Tensor, target: Tensor) -> Tensor:
        assert self.lpips is not None
        return self.lpips(images.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)).mean()


class Encoder(nn.Sequential):
    """Images [N, C, H, W] to codes, float32 [N, latent_dim]."""

    def __init__(self, resolution: int, channels: int, latent_dim: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * (resolution // 8) ** 2, latent_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float()


class Decoder(nn.Sequential):
    """Codes [N, latent_dim] to images, float32 [N, C, H, W] in [-1, 1]."""

    def __init__(self, resolution: int, channels: int, latent_dim: int, width: int) -> None:
        side = resolution // 8
        super().__init__(
            nn.Linear(latent_dim, 4 * width * side**2),
            nn.Unflatten(1, (4 * width, side, side)),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).float().tanh()


class Discriminator(nn.Sequential):
    """One logit for each code: [N, latent_dim] to [N, 1]."""

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__(
            nn.Linear(latent_dim, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )
