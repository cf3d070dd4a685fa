"""MUNIT's autoencoder: a picture as a content, a map, and a style, a vector (Huang et al. 2018, arXiv:1804.04732)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.initialization import init_kaiming_
from lightning_modules.networks.instance_norm import InstanceNorm
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.networks.resnet_generator import ResnetBlock


@dataclass(frozen=True)
class MunitOptions:
    """An autoencoder of contents and styles.

    Args:
        width: channels at full resolution; they double with each halving.
        halvings: how often the content's side is halved; a style is of a map that is halved twice more, and pooled.
        blocks: residual blocks at the content's resolution, of encoder and decoder each.
        style_dim: dimensions of a style.
        hidden: width of the layers from a style to the decoder's means and standard deviations.
        gradient_checkpointing: recompute each residual block in the backward pass: less memory, a third more time.
    """

    width: Count = 64
    halvings: Count = 2
    blocks: Count = 4
    style_dim: Count = 8
    hidden: Count = 256
    gradient_checkpointing: bool = False


class MunitAutoencoder(nn.Module):
    """Pictures of one domain to contents and styles, and back.

    Args:
        options: see ``MunitOptions``.
        channels: of the pictures, 1 or 3.
    """

    def __init__(self, options: MunitOptions = MunitOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.content_encoder = ContentEncoder(options, channels)
        self.style_encoder = StyleEncoder(options, channels)
        self.decoder = Decoder(options, channels)
        self.halvings = options.halvings
        init_kaiming_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures decoded from their own content and style."""
        return self.decode(*self.encode(images))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Contents ``[N, C, h, w]`` and styles, float32 (or better) ``[N, style_dim]``.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1].

        Raises:
            ValueError: the pictures are too small.
        """
        self.check_sides(images, 2 ** max(len(self.style_encoder.halvings), self.halvings + 1))
        x = like_weights(images, self)
        return self.content_encoder(x), self.style_encoder(x)

    def check_sides(self, images: Tensor, smallest: int | None = None) -> None:
        """Checks that an encoder's last map of images has something left to be normalised and mirrored at its edges.

        Args:
            images: ``[N, channels, H, W]``.
            smallest: side; None: what the content's encoder wants.

        Raises:
            ValueError: they are too small.
        """
        smallest, (height, width) = smallest or 2 ** (self.halvings + 1), images.shape[2:]
        if min(height, width) < smallest:
            raise ValueError(f"the autoencoder wants pictures of {smallest} pixels or more, not {width} x {height}")

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Pictures of contents and styles, float32 (or better), in [-1, 1]; their sides are multiples of 2^halvings."""
        return self.decoder(like_weights(content, self), style)


class ContentEncoder(nn.Module):
    """Convolution 7x7, convolutions 4x4 that halve, residual blocks; instance norms take style away."""

    def __init__(self, options: MunitOptions, channels: int) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        widths = [options.width * 2**number for number in range(options.halvings + 1)]
        self.stem = nn.Conv2d(channels, widths[0], 7)
        self.halvings = nn.ModuleList(nn.Conv2d(width, 2 * width, 4, stride=2) for width in widths[:-1])
        self.blocks = nn.ModuleList(ResnetBlock(widths[-1]) for _ in range(options.blocks))
        self.norm = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to ``[N, C, H / 2^halvings, W / 2^halvings]``."""
        x = F.relu(self.norm(self.stem(reflect(x, 3))))
        for convolution in self.halvings:
            x = F.relu(self.norm(convolution(reflect(x))))
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return x


class StyleEncoder(nn.Module):
    """Convolution 7x7, convolutions 4x4 that halve, mean over the map, linear; no norms, which would lose style."""

    def __init__(self, options: MunitOptions, channels: int) -> None:
        super().__init__()
        widths = [options.width * 2 ** min(number, 2) for number in range(5)]
        self.stem = nn.Conv2d(channels, widths[0], 7)
        self.halvings = nn.ModuleList(
            nn.Conv2d(inner, outer, 4, stride=2) for inner, outer in itertools.pairwise(widths)
        )
        self.to_style = nn.Linear(widths[-1], options.style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to float32 (or better) ``[N, style_dim]``."""
        x = F.relu(self.stem(reflect(x, 3)))
        for convolution in self.halvings:
            x = F.relu(convolution(reflect(x)))
        return in_full_precision(self.to_style(x.mean((2, 3))))


class Decoder(nn.Module):
    """Residual blocks whose means and standard deviations are the style's, convolutions 5x5 at doubled sizes, tanh."""

    def __init__(self, options: MunitOptions, channels: int) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        width = options.width * 2**options.halvings
        self.blocks = nn.ModuleList(StyledBlock(width) for _ in range(options.blocks))
        statistics = 4 * width * options.blocks
        self.to_statistics = nn.Sequential(
            nn.Linear(options.style_dim, options.hidden),
            nn.ReLU(),
            nn.Linear(options.hidden, options.hidden),
            nn.ReLU(),
            nn.Linear(options.hidden, statistics),
        )
        widths = [width // 2**number for number in range(options.halvings + 1)]
        self.doublings = nn.ModuleList(nn.Conv2d(inner, inner // 2, 5) for inner in widths[:-1])
        self.norms = nn.ModuleList(PictureNorm(outer) for outer in widths[1:])
        self.to_image = nn.Conv2d(widths[-1], channels, 7)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Contents ``[N, C, h, w]`` and styles ``[N, style_dim]`` to pictures."""
        statistics = self.to_statistics(like_weights(style, self)).chunk(len(self.blocks), 1)
        for block, own in zip(self.blocks, statistics, strict=True):
            x = checkpointed(block, x, own, enabled=self.gradient_checkpointing)
        for convolution, norm in zip(self.doublings, self.norms, strict=True):
            x = F.relu(norm(convolution(reflect(F.interpolate(x, scale_factor=2.0), 2))))
        return torch.tanh(in_full_precision(self.to_image(reflect(x, 3))))


class StyledBlock(nn.Module):
    """Like ``ResnetBlock``, with means and standard deviations that are given (AdaIN, Huang and Belongie 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3) for _ in range(2))
        self.norm = InstanceNorm()

    def forward(self, x: Tensor, statistics: Tensor) -> Tensor:
        """``[N, C, h, w]`` to the same shape.

        Args:
            x: the map.
            statistics: ``[N, 4 C]``: means, then standard deviations, of the first and of the second norm.
        """
        first, second = self.convolutions
        mean_1, std_1, mean_2, std_2 = in_full_precision(statistics)[:, :, None, None].chunk(4, 1)
        inner = F.relu(self._styled(first(reflect(x)), mean_1, std_1))
        return x + self._styled(second(reflect(inner)), mean_2, std_2)

    def _styled(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return torch.addcmul(mean, self.norm(in_full_precision(x)), std).to(x.dtype)


class PictureNorm(nn.Module):
    """Subtracts the mean of a whole picture's map and divides by its standard deviation; scale and shift per channel.

    Unlike an instance norm it leaves the channels' means and deviations, which the style has set.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # As the authors: uniform in [0, 1].
        self.weight = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape and dtype; in float32 or better inside."""
        with torch.autocast(x.device.type, enabled=False):
            full = in_full_precision(x)
            std, mean = torch.std_mean(full, (1, 2, 3), keepdim=True)
            normed = (full - mean) / (std + 1e-5)
            return torch.addcmul(self.bias[:, None, None], normed, self.weight[:, None, None]).to(x.dtype)
