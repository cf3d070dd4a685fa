"""StyleGAN2's discriminator (Karras et al. 2020, arXiv:1912.04958), with conditional projection."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive, Whole
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import at_least_float32, inner_dtype, like_weights, weights_dtype
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, MinibatchDeviation
from lightning_modules.networks.stylegan2.mapping import MappingNetwork, MappingOptions
from lightning_modules.networks.stylegan2.synthesis import feature_sides


@dataclass(frozen=True)
class DiscriminatorOptions:
    """The discriminator.

    Args:
        channel_base: a feature map of side r has ``channel_base`` / r channels,
        channel_max: but no more than this.
        residual: whether blocks have skip connections; ADA's CIFAR-10 networks have none.
        minibatch_group: images whose deviation is taken together; a rank's micro-batch is a multiple of it.
        minibatch_features: channels of their deviation; 0: none.
        mapping_layers: of the network that maps labels.
        half_resolutions: how many of the highest resolutions run in 16 bits under autocast; the others in float32.
        clamp: bound of what a convolution gives, against overflow in float16; None: none.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 32768
    channel_max: Count = 512
    residual: bool = True
    minibatch_group: Count = 4
    minibatch_features: Whole = 1
    mapping_layers: Count = 8
    half_resolutions: Whole = 4
    clamp: Positive | None = 256.0
    gradient_checkpointing: bool = False


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the side, beside a skip connection.

    Args:
        inputs: channels.
        outputs: channels of its result.
        residual: whether there is a skip connection.
        half: whether it runs in 16 bits under autocast.
        clamp: bound of what a convolution gives; None: none.
        channels: of the image where this block is the first one; 0: it is not.
    """

    def __init__(
        self, inputs: int, outputs: int, *, residual: bool, half: bool, clamp: float | None, channels: int = 0
    ) -> None:
        super().__init__()
        self.sixteen_bits = half
        self.from_rgb = EqualizedConv2d(channels, inputs, 1, activation="lrelu", clamp=clamp) if channels else None
        self.convolution = EqualizedConv2d(inputs, inputs, 3, activation="lrelu", clamp=clamp)
        self.halving = EqualizedConv2d(inputs, outputs, 3, activation="lrelu", halve=True, clamp=clamp)
        self.skip = EqualizedConv2d(inputs, outputs, 1, bias=False, halve=True) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]``, or the image, to ``[N, outputs, H/2, W/2]``."""
        dtype = inner_dtype(self, x.device) if self.sixteen_bits else weights_dtype(self)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(dtype)
            if self.from_rgb is not None:
                x = self.from_rgb(x)
            if self.skip is None:
                return self.halving(self.convolution(x))
            return self.skip(x, math.sqrt(0.5)) + self.halving(self.convolution(x), math.sqrt(0.5))


class StyleDiscriminator(nn.Module):
    """The end of StyleGAN's discriminators: minibatch deviation, a convolution, two linear layers, mapped labels.

    Subclasses set the attributes below.
    """

    #: None: there is none.
    deviation: MinibatchDeviation | None
    convolution: nn.Module
    #: Of labels; None: unconditional.
    mapping: MappingNetwork | None

    def judged(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Features ``[N, C, 4, 4]`` to logits, at least float32 ``[N]``, whatever the autocast."""
        with torch.autocast(x.device.type, enabled=False):
            # Minibatch deviation and logits in float32, also where the weights have 16 bits.
            x = x.to(at_least_float32(weights_dtype(self)))
            if self.deviation is not None:
                x = self.deviation(x)
            x = self.head(self.convolution(x).flatten(1))
            if self.mapping is None:
                return x[:, 0]
            return (x * self.mapping(None, labels)).sum(1) / math.sqrt(x.shape[1])

    @abstractmethod
    def head(self, x: Tensor) -> Tensor:
        """The two linear layers: ``[N, 16 C]`` to ``[N, 1]``, or as many numbers as a mapped label has."""


class Discriminator(StyleDiscriminator):
    """Images to logits: blocks that halve the side down to 4, minibatch deviation, and two linear layers.

    With classes it is a projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637) whose labels are mapped.

    Args:
        options: see ``DiscriminatorOptions``.
        resolution: side of the images in pixels, a power of two from 8 on.
        channels: of the images, 1 or 3.
        num_classes: 0: unconditional.

    Raises:
        ValueError: an unsupported resolution.
    """

    def __init__(
        self,
        options: DiscriminatorOptions = DiscriminatorOptions(),
        *,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        sides = feature_sides(resolution)[::-1]
        widths = [min(options.channel_base // side, options.channel_max) for side in sides]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                before,
                after,
                residual=options.residual,
                half=side > resolution >> options.half_resolutions,
                clamp=options.clamp,
                channels=channels if side == resolution else 0,
            )
            for side, (before, after) in zip(sides[:-1], pairwise(widths), strict=True)
        )
        last, features = widths[-1], options.minibatch_features
        self.deviation = MinibatchDeviation(options.minibatch_group, features) if features else None
        self.convolution = EqualizedConv2d(last + features, last, 3, activation="lrelu", clamp=options.clamp)
        self.hidden = EqualizedLinear(last * 4 * 4, last, activation="lrelu")
        self.output = EqualizedLinear(last, last if num_classes else 1)
        mapping = MappingOptions(layers=options.mapping_layers, w_dim=last)
        self.mapping = MappingNetwork(mapping, latent_dim=0, num_classes=num_classes) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images, at least float32 ``[N]``; positive means real.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels; or N is no multiple of ``minibatch_group``.
        """
        labels = required_labels(labels, self.num_classes)
        x = like_weights(images, self)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return self.judged(x, labels)

    def head(self, x: Tensor) -> Tensor:
        """See ``StyleDiscriminator``."""
        logits: Tensor = self.output(self.hidden(x))
        return logits
