"""R3GAN's networks (Huang et al. 2024, arXiv:2501.05441): residual stages without normalisation.

A block is a bottleneck turned around (1x1 to more channels, grouped 3x3, 1x1 back) beside the identity. Instead of
normalisation there is Fixup's initialisation (Zhang et al. 2019): the last convolution of each block begins at 0, the
others are scaled by L^(-1/4), L being the number of blocks of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import at_least_float32, weights_dtype
from lightning_modules.networks.stylegan2.filters import downsample, setup_filter, upsample

#: Of the leaky ReLU, and the gain that keeps the variance through it.
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))


@dataclass(frozen=True)
class R3Options:
    """One of the two networks; the authors' discriminator is the generator turned around.

    Args:
        widths: channels at 4 px, 8 px and so on up to the images' side.
        blocks: residual blocks at each side.
        expansion: the middle of a block has so many times its channels.
        group_width: channels of each group of the middle convolution; the cardinality is expansion * width /
            group_width: 96 at 768 channels.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    widths: tuple[Count, ...] = (768, 768, 768, 768)
    blocks: Count = 2
    expansion: Count = 2
    group_width: Count = 16
    gradient_checkpointing: bool = False


class BiasedActivation(nn.Module):
    """Adds a bias to each channel of ``[N, C, H, W]``, then a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # In the dtype of the maps: under autocast a float32 bias would turn these into float32.
        return F.leaky_relu(x + self.bias.to(x.dtype).view(1, -1, 1, 1), SLOPE)


class ResidualBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions beside the identity.

    Args:
        channels: of what comes in and goes out.
        options: see ``R3Options``.
        depth: number of blocks of the whole network, by which the first two convolutions are scaled.

    Raises:
        ValueError: the groups of the middle convolution do not come out even.
    """

    def __init__(self, channels: int, options: R3Options, depth: int) -> None:
        super().__init__()
        inner = channels * options.expansion
        if inner % options.group_width:
            raise ValueError(
                f"group_width {options.group_width} does not divide the {inner} channels inside a block of width "
                f"{channels}"
            )
        # Three linear layers: L^(-1 / (2 * 3 - 2)).
        gain = GAIN * depth**-0.25
        self.expand = _convolution(channels, inner, gain=gain)
        self.activation = BiasedActivation(inner)
        self.grouped = _convolution(inner, inner, 3, gain=gain, groups=inner // options.group_width)
        self.activation_after = BiasedActivation(inner)
        self.contract = _convolution(inner, channels, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.expand(x))
        return x + self.contract(self.activation_after(self.grouped(y)))


class Stage(nn.Sequential):
    """The residual blocks at one side.

    Args:
        channels, options, depth: see ``ResidualBlock``.
    """

    def __init__(self, channels: int, options: R3Options, depth: int) -> None:
        super().__init__(*(ResidualBlock(channels, options, depth) for _ in range(options.blocks)))
        self.gradient_checkpointing = options.gradient_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        for block in self:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return x


class R3Generator(nn.Module):
    """Latent vectors to images: a learned 4x4 basis weighted by the latent, then stages that double the side.

    Args:
        options: see ``R3Options``.
        latent_dim: length of z, which is drawn from N(0, 1); also of a label's embedding, which is joined to it.
        resolution: side of the images in pixels: 4 times 2 for each width after the first.
        channels: of the images, 1 or 3.
        num_classes: 0: unconditional.

    Raises:
        ValueError: widths that do not lead to the resolution, or that groups do not divide.
    """

    taps: Tensor

    def __init__(
        self,
        options: R3Options = R3Options(),
        *,
        latent_dim: int = 64,
        resolution: int = 32,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        widths, depth = _checked(options, resolution)
        self.num_classes = num_classes
        inputs = latent_dim * (2 if num_classes else 1)
        self.embedding = _embedding(num_classes, latent_dim) if num_classes else None
        self.weights = nn.Linear(inputs, widths[0], bias=False)
        nn.init.normal_(self.weights.weight, 0, inputs**-0.5)
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.stages = nn.ModuleList(Stage(width, options, depth) for width in widths)
        self.changes = nn.ModuleList(_change(before, after) for before, after in pairwise(widths))
        self.to_image = _convolution(widths[-1], channels)
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of latents.

        Args:
            z: ``[N, latent_dim]``.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Returns:
            At least float32 ``[N, channels, resolution, resolution]``, meant to be in [-1, 1] but not bounded.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        dtype = weights_dtype(self)
        # The stage at 4 px in the weights' own precision, as with the authors.
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(dtype)
            if self.embedding is not None:
                z = torch.cat([z, self.embedding(labels)], 1)
            x = self.basis * self.weights(z)[:, :, None, None]
            x = self.stages[0](x)
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(upsample(change(x), self.taps))
        return self.to_image(x).to(at_least_float32(dtype))


class R3Discriminator(nn.Module):
    """Images to logits: stages that halve the side down to 4x4, a 4x4 convolution of each channel, a linear layer.

    With classes the features' inner product with the label's embedding is the logit.

    Args:
        options: see ``R3Options``.
        resolution: side of the images in pixels: 4 times 2 for each width after the first.
        channels: of the images, 1 or 3.
        num_classes: 0: unconditional.

    Raises:
        ValueError: widths that do not lead to the resolution, or that groups do not divide.
    """

    taps: Tensor

    def __init__(
        self,
        options: R3Options = R3Options(),
        *,
        resolution: int = 32,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        widths, depth = _checked(options, resolution)
        last, widths = widths[0], widths[::-1]
        self.num_classes = num_classes
        self.from_image = _convolution(channels, widths[0])
        self.stages = nn.ModuleList(Stage(width, options, depth) for width in widths)
        self.changes = nn.ModuleList(_change(before, after) for before, after in pairwise(widths))
        self.basis = nn.Conv2d(last, last, 4, groups=last, bias=False)
        nn.init.normal_(self.basis.weight, 0, 1 / 4)
        self.features = nn.Linear(last, last if num_classes else 1, bias=False)
        nn.init.normal_(self.features.weight, 0, last**-0.5)
        self.embedding = _embedding(num_classes, last, gain=last**-0.5) if num_classes else None
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images, at least float32 ``[N]``; a real image's is larger than a generated one's.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        dtype = weights_dtype(self)
        x = self.from_image(images.to(dtype))
        for stage, change in zip(self.stages[:-1], self.changes, strict=True):
            x = change(downsample(stage(x), self.taps))
        # The stage at 4 px in the weights' own precision; logits in float32 at least.
        with torch.autocast(x.device.type, enabled=False):
            x = self.stages[-1](x.to(dtype))
            x = self.features(self.basis(x).flatten(1)).to(at_least_float32(dtype))
            return x[:, 0] if self.embedding is None else (x * self.embedding(labels)).sum(1)


def _convolution(inputs: int, outputs: int, kernel: int = 1, *, gain: float = 1.0, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side and, for gain 1, the variance."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(inputs // groups * kernel**2))
    return layer


def _embedding(num_classes: int, length: int, gain: float = 1.0) -> nn.Embedding:
    """A vector for each class: the authors' linear layer of the classes as rows with a single one."""
    layer = nn.Embedding(num_classes, length)
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(num_classes))
    return layer


def _change(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else _convolution(before, after)


def _checked(options: R3Options, resolution: int) -> tuple[tuple[int, ...], int]:
    """The widths, from 4 px on, and the number of blocks."""
    widths = tuple(options.widths)
    if not widths or 4 * 2 ** (len(widths) - 1) != resolution:
        sides = ", ".join(str(4 * 2**number) for number in range(len(widths))) or "no side"
        raise ValueError(f"{len(widths)} widths are for {sides} px; resolution {resolution} needs one for each side")
    return widths, len(widths) * options.blocks
