"""A convolutional variational autoencoder's networks (Kingma & Welling 2014, arXiv:1312.6114)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.blocks import DownBlock, UpBlock, stage_channels
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import like_weights


@dataclass(frozen=True)
class AutoencoderOptions:
    """The VAE's encoder and decoder.

    Args:
        width: channels of the largest feature map; they double with each halving of the side, up to 8 times ``width``.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 32
    gradient_checkpointing: bool = False


class VAEEncoder(nn.Module):
    """Images to the mean and log variance of the posterior q(z|x), a Gaussian with diagonal covariance.

    Args:
        options: see ``AutoencoderOptions``.
        resolution: side of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: length of z.

    Raises:
        ValueError: an unsupported resolution or width.
    """

    def __init__(
        self,
        options: AutoencoderOptions = AutoencoderOptions(),
        *,
        resolution: int = 64,
        channels: int = 3,
        latent_dim: int = 128,
    ) -> None:
        super().__init__()
        stages = stage_channels(resolution, options.width)
        self.gradient_checkpointing = options.gradient_checkpointing
        self.blocks = nn.ModuleList(DownBlock(before, after) for before, after in pairwise([channels, *stages]))
        self.to_posterior = nn.Linear(4 * 4 * stages[-1], 2 * latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of images.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].

        Returns:
            Mean and log variance (natural logarithm), float32 ``[N, latent_dim]`` each. The log variance is clamped
            to [-30, 20], so that its exponential can be used as it is.
        """
        x = like_weights(images, self)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        # In the parameters' own precision: the KL divergence is sensitive to the log variance.
        with torch.autocast(x.device.type, enabled=False):
            posterior = self.to_posterior(x.to(self.to_posterior.weight.dtype).flatten(1)).float()
        mean, log_variance = posterior.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class VAEDecoder(nn.Module):
    """Latent vectors to the mean of the images' distribution p(x|z).

    Args:
        options: see ``AutoencoderOptions``.
        latent_dim: length of z.
        resolution: side of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        ValueError: an unsupported resolution or width.
    """

    def __init__(
        self,
        options: AutoencoderOptions = AutoencoderOptions(),
        *,
        latent_dim: int = 128,
        resolution: int = 64,
        channels: int = 3,
    ) -> None:
        super().__init__()
        stages = stage_channels(resolution, options.width)[::-1]
        self.latent_dim = latent_dim
        self.gradient_checkpointing = options.gradient_checkpointing
        self.project = nn.Linear(latent_dim, 4 * 4 * stages[0])
        self.blocks = nn.ModuleList(UpBlock(before, after) for before, after in pairwise(stages))
        self.to_image = nn.ConvTranspose2d(stages[-1], channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Mean images ``[N, channels, resolution, resolution]``, float32 in [-1, 1], of ``z`` ``[N, latent_dim]``."""
        x = F.relu(self.project(like_weights(z, self))).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return torch.tanh(self.to_image(x).float())


class Autoencoder(nn.Module):
    """Encoder and decoder as one network, with the reparametrised draw of z between them.

    Args:
        options: see ``AutoencoderOptions``.
        resolution, channels, latent_dim: as of ``VAEEncoder``.
    """

    def __init__(
        self,
        options: AutoencoderOptions = AutoencoderOptions(),
        *,
        resolution: int = 64,
        channels: int = 3,
        latent_dim: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = VAEEncoder(options, resolution=resolution, channels=channels, latent_dim=latent_dim)
        self.decoder = VAEDecoder(options, resolution=resolution, channels=channels, latent_dim=latent_dim)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes, draws and decodes.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].
            noise: ``[N, latent_dim]`` from N(0, 1); zeros decode the posterior's mean.

        Returns:
            Decoded images like ``images``; mean and log variance of the posterior, ``[N, latent_dim]`` each; float32.
        """
        mean, log_variance = self.encoder(images)
        return self.decoder(draw_latents(mean, log_variance, noise)), mean, log_variance


def draw_latents(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Latents ``[N, D]`` out of their posteriors, by ``noise`` from N(0, 1); all three are ``[N, D]``."""
    return mean + torch.exp(0.5 * log_variance) * noise
