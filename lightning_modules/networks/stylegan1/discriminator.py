"""StyleGAN 1's discriminator (Karras et al. 2019, arXiv:1812.04958), with progressive growing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Whole
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import in_full_precision, inner_dtype, like_weights, weights_dtype
from lightning_modules.networks.stylegan1.growing import Growing, halved
from lightning_modules.networks.stylegan1.layers import ScaledConv2d
from lightning_modules.networks.stylegan2.discriminator import StyleDiscriminator
from lightning_modules.networks.stylegan2.layers import EqualizedLinear, MinibatchDeviation
from lightning_modules.networks.stylegan2.mapping import MappingNetwork, MappingOptions
from lightning_modules.networks.stylegan2.synthesis import feature_sides


@dataclass(frozen=True)
class DiscriminatorOptions:
    """The discriminator.

    Args:
        channel_base: a feature map of side r has ``channel_base`` / r channels,
        channel_max: but no more than this.
        minibatch_group: images whose deviation is taken together; a rank's micro-batch is a multiple of it.
        minibatch_features: channels of their deviation; 0: none.
        mapping_layers: of the network that maps labels.
        half_resolutions: how many of the highest resolutions run in 16 bits under autocast; the others in float32.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 16384
    channel_max: Count = 512
    minibatch_group: Count = 4
    minibatch_features: Whole = 1
    mapping_layers: Count = 8
    half_resolutions: Whole = 4
    gradient_checkpointing: bool = False


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the side.

    Args:
        inputs: channels.
        outputs: channels of its result.
        half: whether it runs in 16 bits under autocast.
    """

    def __init__(self, inputs: int, outputs: int, *, half: bool) -> None:
        super().__init__()
        self.sixteen_bits = half
        self.convolution = ScaledConv2d(inputs, inputs, 3)
        self.halving = ScaledConv2d(inputs, outputs, 3, resample="halve")

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H/2, W/2]``, at least float32."""
        dtype = inner_dtype(self, x.device) if self.sixteen_bits else weights_dtype(self)
        with torch.autocast(x.device.type, enabled=False):
            x = F.leaky_relu(self.convolution(x.to(dtype)), 0.2)
            return in_full_precision(F.leaky_relu(self.halving(x), 0.2))


class GrowingDiscriminator(StyleDiscriminator, Growing):
    """Images to logits: blocks that halve the side down to 4, minibatch deviation, and two linear layers.

    A smaller image enters where its side does, by a convolution of its own; between two levels of detail the features
    of two sides are mixed. With classes it is StyleGAN2's projection discriminator.

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
        self.from_rgb = nn.ModuleList(ScaledConv2d(channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(before, after, half=side > resolution >> options.half_resolutions)
            for side, (before, after) in zip(sides[:-1], pairwise(widths), strict=True)
        )
        last, features = widths[-1], options.minibatch_features
        self.deviation = MinibatchDeviation(options.minibatch_group, features) if features else None
        self.convolution = nn.Sequential(ScaledConv2d(last + features, last, 3), nn.LeakyReLU(0.2))
        self.hidden = ScaledConv2d(last, last, 4, padding=0)
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
        small = like_weights(images, self)
        x = self._entered(small, 0)
        for level, block in enumerate(self.blocks):
            x, small = checkpointed(block, x, enabled=self.gradient_checkpointing), halved(small)
            x = self.faded(x, self._entered(small, level + 1), level)
        return self.judged(x, labels)

    def head(self, x: Tensor) -> Tensor:
        """See ``StyleDiscriminator``."""
        hidden = F.leaky_relu(self.hidden(x.unflatten(1, (-1, 4, 4))), 0.2)
        logits: Tensor = self.output(hidden.flatten(1))
        return logits

    def _entered(self, images: Tensor, level: int) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return in_full_precision(F.leaky_relu(self.from_rgb[level](images), 0.2))
