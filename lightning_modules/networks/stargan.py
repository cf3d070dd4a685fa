"""StarGAN v2's networks: pictures of several domains in each other's styles (Choi et al. 2020, arXiv:1912.01865)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.initialization import init_kaiming_
from lightning_modules.networks.instance_norm import InstanceNorm
from lightning_modules.networks.precision import in_full_precision, like_weights

#: Both branches of a residual block are added and divided by this: the sum has a variance of 1 again.
HALVED = 1 / math.sqrt(2)


@dataclass(frozen=True)
class StarGANOptions:
    """Sizes of all four networks.

    Args:
        width: channels at full resolution; they double with each halving.
        width_max: but never to more than this.
        halvings: how often the generator halves a picture's side before it doubles it again.
        latent_dim: dimensions of z, which styles are drawn by.
        style_dim: dimensions of a style.
        hidden: width of the layers from z to styles.
        gradient_checkpointing: recompute each residual block in the backward pass: less memory, a third more time.
    """

    width: Count = 64
    width_max: Count = 512
    halvings: Count = 4
    latent_dim: Count = 16
    style_dim: Count = 64
    hidden: Count = 512
    gradient_checkpointing: bool = False

    def widths(self, halvings: int) -> list[int]:
        """Channels before, between and after so many halvings."""
        return [min(self.width * 2**number, self.width_max) for number in range(halvings + 1)]


class StarGenerator(nn.Module):
    """A picture in a style: residual blocks with instance norms inwards, and with the style's AdaIN outwards.

    Args:
        options: see ``StarGANOptions``.
        channels: of the pictures, 1 or 3.
    """

    def __init__(self, options: StarGANOptions = StarGANOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        widths = options.widths(options.halvings)
        inwards = list(pairwise(widths))
        self.from_image = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            [ResidualBlock(inner, outer, normalized=True, halved=True) for inner, outer in inwards]
            + [ResidualBlock(widths[-1], widths[-1], normalized=True) for _ in range(2)]
        )
        self.decoder = nn.ModuleList(
            [StyledBlock(widths[-1], widths[-1], options.style_dim) for _ in range(2)]
            + [StyledBlock(outer, inner, options.style_dim, doubled=True) for inner, outer in reversed(inwards)]
        )
        self.norm = ScaledInstanceNorm(widths[0])
        self.to_image = nn.Conv2d(widths[0], channels, 1)
        init_kaiming_(self)

    def forward(self, images: Tensor, styles: Tensor) -> Tensor:
        """Pictures in styles: float32 (or better), about in [-1, 1], not clamped.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1]; sides are multiples of 2^halvings.
            styles: ``[N, style_dim]``.
        """
        x = self.from_image(like_weights(images, self))
        styles = like_weights(styles, self)
        for block in self.encoder:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        for block in self.decoder:
            x = checkpointed(block, x, styles, enabled=self.gradient_checkpointing)
        return in_full_precision(self.to_image(F.leaky_relu(self.norm(x), 0.2)))


class MappingNetwork(nn.Module):
    """Latents to styles: four layers that all domains share, then four of each domain.

    Args:
        options: see ``StarGANOptions``.
        num_domains: number of domains.
    """

    def __init__(self, options: StarGANOptions = StarGANOptions(), *, num_domains: int) -> None:
        super().__init__()
        hidden = options.hidden
        self.shared = _perceptron(options.latent_dim, *[hidden] * 4)
        self.heads = nn.ModuleList(
            nn.Sequential(*_perceptron(*[hidden] * 4), nn.Linear(hidden, options.style_dim)) for _ in range(num_domains)
        )
        init_kaiming_(self)

    def forward(self, latents: Tensor, domains: Tensor) -> Tensor:
        """Styles, float32 (or better) ``[N, style_dim]``.

        Args:
            latents: ``[N, latent_dim]``, N(0, I).
            domains: int64 ``[N]``.
        """
        return of_domains(self.heads, self.shared(like_weights(latents, self)), domains)


class StyleEncoder(nn.Module):
    """Pictures to styles: a network that all domains share, then a layer of each domain.

    Args:
        options: see ``StarGANOptions``.
        resolution: of the pictures, a power of two.
        channels: of the pictures, 1 or 3.
        num_domains: number of domains.
    """

    def __init__(
        self, options: StarGANOptions = StarGANOptions(), *, resolution: int, channels: int = 3, num_domains: int
    ) -> None:
        super().__init__()
        self.trunk = Trunk(options, resolution, channels)
        self.heads = nn.ModuleList(nn.Linear(self.trunk.width, options.style_dim) for _ in range(num_domains))
        init_kaiming_(self)

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        """Styles, float32 (or better) ``[N, style_dim]``, of pictures ``[N, channels, H, W]`` of the given domains."""
        return of_domains(self.heads, self.trunk(images), domains)


class DomainDiscriminator(nn.Module):
    """Pictures to one logit, of the domain that they are said to be of.

    Args:
        options: see ``StarGANOptions``.
        resolution: of the pictures, a power of two.
        channels: of the pictures, 1 or 3.
        num_domains: number of domains.
    """

    def __init__(
        self, options: StarGANOptions = StarGANOptions(), *, resolution: int, channels: int = 3, num_domains: int
    ) -> None:
        super().__init__()
        self.trunk = Trunk(options, resolution, channels)
        self.to_logits = nn.Linear(self.trunk.width, num_domains)
        init_kaiming_(self)

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        """Logits ``[N]``, float32 or better, of pictures ``[N, channels, H, W]``; domains: int64 ``[N]``."""
        logits = in_full_precision(self.to_logits(self.trunk(images)))
        return logits.gather(1, domains[:, None]).squeeze(1)


class Trunk(nn.Module):
    """What style encoder and discriminator are made of: residual blocks down to 4 x 4, and a convolution over these."""

    def __init__(self, options: StarGANOptions, resolution: int, channels: int) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        widths = options.widths(resolution.bit_length() - 3)
        self.width = widths[-1]
        self.from_image = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(inner, outer, halved=True) for inner, outer in pairwise(widths))
        self.last = nn.Conv2d(self.width, self.width, 4)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to ``[N, width]``."""
        x = self.from_image(like_weights(images, self))
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return F.leaky_relu(self.last(F.leaky_relu(x, 0.2)), 0.2).flatten(1)


class ResidualBlock(nn.Module):
    """Two convolutions after activations (and norms), beside a shortcut; halves the sides between them, if asked."""

    def __init__(self, inner: int, outer: int, *, normalized: bool = False, halved: bool = False) -> None:
        super().__init__()
        self.halved = halved
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(inner, inner, 3, padding=1), nn.Conv2d(inner, outer, 3, padding=1)]
        )
        self.norms = nn.ModuleList(ScaledInstanceNorm(inner) if normalized else nn.Identity() for _ in range(2))
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inner, H, W]`` to ``[N, outer, H, W]``, or of half the sides."""
        first, second = self.convolutions
        before, between = self.norms
        straight, inner = self.shortcut(x), first(F.leaky_relu(before(x), 0.2))
        if self.halved:
            straight, inner = F.avg_pool2d(straight, 2), F.avg_pool2d(inner, 2)
        return (straight + second(F.leaky_relu(between(inner), 0.2))) * HALVED


class StyledBlock(nn.Module):
    """Like ``ResidualBlock``, with AdaIN's scales and shifts of a style; doubles the sides first, if asked."""

    def __init__(self, inner: int, outer: int, style_dim: int, *, doubled: bool = False) -> None:
        super().__init__()
        self.doubled = doubled
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1)]
        )
        self.to_statistics = nn.ModuleList([nn.Linear(style_dim, 2 * inner), nn.Linear(style_dim, 2 * outer)])
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()
        self.norm = InstanceNorm()

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """``[N, inner, H, W]`` to ``[N, outer, H, W]``, or of twice the sides; styles: ``[N, style_dim]``."""
        first, second = self.convolutions
        of_first, of_second = (layer(styles) for layer in self.to_statistics)
        straight, inner = x, F.leaky_relu(self._styled(x, of_first), 0.2)
        if self.doubled:
            straight, inner = F.interpolate(straight, scale_factor=2.0), F.interpolate(inner, scale_factor=2.0)
        inner = F.leaky_relu(self._styled(first(inner), of_second), 0.2)
        return (self.shortcut(straight) + second(inner)) * HALVED

    def _styled(self, x: Tensor, statistics: Tensor) -> Tensor:
        scale, shift = in_full_precision(statistics)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(in_full_precision(x)), 1 + scale).to(x.dtype)


class ScaledInstanceNorm(nn.Module):
    """Instance norm with a scale and a shift of each channel, computed in float32 or better."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape and dtype."""
        weight, bias = (in_full_precision(value)[:, None, None] for value in (self.weight, self.bias))
        return torch.addcmul(bias, self.norm(in_full_precision(x)), weight).to(x.dtype)


def of_domains(heads: nn.ModuleList, features: Tensor, domains: Tensor) -> Tensor:
    """What each row's own head makes of it, float32 or better.

    All heads look at all rows, so that each has a gradient on every rank.

    Args:
        heads: of each domain: ``[N, F]`` to ``[N, D]``.
        features: ``[N, F]``.
        domains: int64 ``[N]``: each row's head.
    """
    every = torch.stack([in_full_precision(head(features)) for head in heads], 1)
    return every.take_along_dim(domains[:, None, None], 1).squeeze(1)


def _perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers)
