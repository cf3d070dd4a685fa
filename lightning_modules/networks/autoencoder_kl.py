"""Encoder and decoder of latent diffusion's autoencoder (Rombach et al. 2021, arXiv:2112.10752)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import like_weights

#: Groups of every normalisation, and what is added to their variance, as in the authors' code.
GROUPS, EPSILON = 32, 1e-6


@dataclass(frozen=True)
class KLAutoencoderOptions:
    """Encoder and decoder. The defaults are the published f8 model of 256 px.

    Args:
        width: channels at the images' own resolution, a multiple of 32.
        multipliers: of the width at each resolution, each half of the one before: three of them make latents of a
            quarter of the side (f4), four of an eighth (f8).
        blocks: residual blocks at each resolution of the encoder; the decoder has one more.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 128
    multipliers: tuple[Count, ...] = (1, 2, 4, 4)
    blocks: Count = 2
    gradient_checkpointing: bool = False

    @property
    def factor(self) -> int:
        """By how much a side of the latents is smaller than the images'."""
        return int(2 ** (len(self.multipliers) - 1))


class KLAutoencoder(nn.Module):
    """Encoder and decoder as one network, with the reparametrised draw of latents between them.

    Both are convolutional: they take pictures of any size whose sides are multiples of ``options.factor``.

    Args:
        options: see ``KLAutoencoderOptions``.
        channels: 1 (grey) or 3 (RGB).
        latent_channels: numbers of each place of the latents.

    Raises:
        ValueError: a width that is no multiple of 32, or no multipliers.
    """

    def __init__(
        self,
        options: KLAutoencoderOptions = KLAutoencoderOptions(),
        *,
        channels: int = 3,
        latent_channels: int = 4,
    ) -> None:
        super().__init__()
        if options.width % GROUPS:
            raise ValueError(f"width {options.width} is no multiple of {GROUPS}, the groups of a normalisation")
        if not options.multipliers:
            raise ValueError("multipliers are empty: name one of the width for each resolution, such as [1, 2, 4, 4]")
        self.factor = options.factor
        self.encoder = KLEncoder(options, channels=channels, latent_channels=latent_channels)
        self.decoder = KLDecoder(options, channels=channels, latent_channels=latent_channels)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encodes, draws and decodes.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1].
            noise: ``[N, latent_channels, h, w]`` from N(0, 1); zeros decode the posterior's mean.

        Returns:
            Decoded images like ``images``; the decoder's last features, of which ``decoder.to_image`` makes them; mean
            and log variance of the posterior, like ``noise``. All but the features are float32 or better.
        """
        mean, log_variance = self.encoder(images)
        features = self.decoder.features(mean + torch.exp(0.5 * log_variance) * noise)
        return self.decoder.picture(features), features, mean, log_variance


class KLEncoder(nn.Module):
    """Images to the mean and log variance of the posterior q(z|x) at each place of the latents.

    Args:
        options: see ``KLAutoencoderOptions``.
        channels: 1 (grey) or 3 (RGB).
        latent_channels: of the latents.
    """

    def __init__(self, options: KLAutoencoderOptions, *, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.factor = options.factor
        self.gradient_checkpointing = options.gradient_checkpointing
        widths = [options.width * multiplier for multiplier in options.multipliers]
        self.from_image = nn.Conv2d(channels, options.width, 3, padding=1)
        self.blocks = nn.ModuleList()
        for number, (before, after) in enumerate(pairwise([options.width, *widths])):
            self.blocks.extend(ResidualBlock(before if not i else after, after) for i in range(options.blocks))
            if number < len(widths) - 1:
                self.blocks.append(Downsampling(after))
        self.blocks.extend(_middle(widths[-1]))
        self.norm = _norm(widths[-1])
        self.to_latents = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)
        self.to_posterior = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of images.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1], with sides that are multiples of ``factor``.

        Returns:
            Mean and log variance (natural logarithm), float32 or better, ``[N, latent_channels, H / factor,
            W / factor]`` each. The log variance is clamped to [-30, 20].

        Raises:
            ValueError: other sides.
        """
        height, width = images.shape[2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"images of {width} x {height} pixels cannot be encoded: sides are multiples of {self.factor}"
            )
        x = self.from_image(like_weights(images, self))
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        x = self.to_latents(F.silu(self.norm(x)))
        # In the parameters' own precision: the KL divergence is sensitive to the log variance.
        with torch.autocast(x.device.type, enabled=False):
            posterior = self.to_posterior(like_weights(x, self.to_posterior))
        mean, log_variance = posterior.to(torch.promote_types(posterior.dtype, torch.float32)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class KLDecoder(nn.Module):
    """Latents to images.

    Args:
        options: see ``KLAutoencoderOptions``.
        channels: 1 (grey) or 3 (RGB).
        latent_channels: of the latents.
    """

    def __init__(self, options: KLAutoencoderOptions, *, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        widths = [options.width * multiplier for multiplier in options.multipliers][::-1]
        self.from_posterior = nn.Conv2d(latent_channels, latent_channels, 1)
        self.from_latents = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(_middle(widths[0]))
        for number, (before, after) in enumerate(pairwise([widths[0], *widths])):
            self.blocks.extend(ResidualBlock(before if not i else after, after) for i in range(options.blocks + 1))
            if number < len(widths) - 1:
                self.blocks.append(Upsampling(after))
        self.norm = _norm(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Images ``[N, channels, H, W]``, float32 or better, about in [-1, 1], of latents ``[N, C, h, w]``."""
        return self.picture(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """What goes into the last convolution, ``to_image``: ``[N, width, H, W]``."""
        x = self.from_latents(self.from_posterior(like_weights(latents, self)))
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return F.silu(self.norm(x))

    def picture(self, features: Tensor) -> Tensor:
        """The last convolution, float32 or better."""
        image: Tensor = self.to_image(features)
        return image.to(torch.promote_types(image.dtype, torch.float32))


class ResidualBlock(nn.Module):
    """Twice group norm, SiLU and convolution 3x3, added to the input: ``[N, in, H, W] -> [N, out, H, W]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.convolution1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.convolution2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W] -> [N, out, H, W]``."""
        h = self.convolution1(F.silu(self.norm1(x)))
        return self.skip(x) + self.convolution2(F.silu(self.norm2(h)))


class PixelAttention(nn.Module):
    """Self-attention of one head over the pixels of a feature map, added to it: keeps ``[N, C, H, W]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        h = self.norm(x)
        tokens = [layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.query, self.key, self.value)]
        attended = F.scaled_dot_product_attention(*tokens)
        return x + self.output(attended.squeeze(1).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))


class Downsampling(nn.Module):
    """Halves the side by a convolution 3x3, with a row and column of zeros after the last ones alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, C, H / 2, W / 2]``."""
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


class Upsampling(nn.Module):
    """Doubles the side by repeating pixels, then a convolution 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, C, 2H, 2W]``."""
        return self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int) -> list[nn.Module]:
    return [ResidualBlock(channels, channels), PixelAttention(channels), ResidualBlock(channels, channels)]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=EPSILON)
