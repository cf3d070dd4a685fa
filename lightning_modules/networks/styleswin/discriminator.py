"""StyleSwin's discriminator: it sees Haar wavelets of the image at every side (arXiv:2112.10762)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gesso.common.ranges import Count, Whole
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.haar import haar_pool, haar_unpool
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.networks.stylegan2.discriminator import StyleDiscriminator
from lightning_modules.networks.stylegan2.filters import downsample, filtered, setup_filter
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, MinibatchDeviation, bias_act
from lightning_modules.networks.stylegan2.mapping import MappingNetwork, MappingOptions
from lightning_modules.networks.stylegan2.synthesis import feature_sides


@dataclass(frozen=True)
class WaveletOptions:
    """The discriminator.

    Args:
        channel_base: the feature map of an image's side r has ``channel_base`` / r channels,
        channel_max: but no more than this.
        spectral_norm: divide the weights by their largest singular values; else their learning rate is equalised.
        minibatch_group: images whose deviation is taken together; a rank's micro-batch is a multiple of it.
        minibatch_features: channels of their deviation; 0: none.
        mapping_layers: of the network that maps labels.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 32768
    channel_max: Count = 512
    spectral_norm: bool = True
    minibatch_group: Count = 4
    minibatch_features: Whole = 1
    mapping_layers: Count = 8
    gradient_checkpointing: bool = False


def haar(x: Tensor) -> Tensor:
    """Haar wavelets: ``[N, C, 2H, 2W]`` to means, and differences down, across and both, ``[N, 4 C, H, W]``."""
    low, vertical, horizontal, diagonal = haar_pool(x)
    # Upper pixels less lower ones, left ones less right ones.
    return torch.cat([low, -horizontal, -vertical, diagonal], 1)


def inverse_haar(x: Tensor) -> Tensor:
    """The images ``[N, C, 2H, 2W]`` of wavelets ``[N, 4 C, H, W]``."""
    mean, down, across, both = x.chunk(4, 1)
    return haar_unpool((mean, -across, -down, both), (2 * x.shape[2], 2 * x.shape[3]))


class NormedConv2d(nn.Module):
    """Spectrally normalised convolution, leaky ReLU; like ``EqualizedConv2d`` it may filter and halve the side.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        halve: whether the side is halved.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, halve: bool = False) -> None:
        super().__init__()
        self.halve, self.kernel = halve, kernel
        self.convolution = parametrizations.spectral_norm(nn.Conv2d(inputs, outputs, kernel, bias=False))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W."""
        normed = self.convolution.weight
        assert isinstance(normed, Tensor)
        weight = normed.to(x.dtype)
        if self.halve:
            length = len(self.taps)
            around = ((length - 1) // 2 + self.kernel // 2, (length - 2) // 2 + self.kernel // 2)
            x = F.conv2d(filtered(x, self.taps, around), weight, stride=2)
        else:
            x = F.conv2d(x, weight, padding=self.kernel // 2)
        return bias_act(x, self.bias, "lrelu")


class WaveletDiscriminator(StyleDiscriminator):
    """Images to logits: at each side, wavelets of the image are added to what is left of the larger sides.

    Args:
        options: see ``WaveletOptions``.
        resolution: side of the images in pixels, a power of two from 16 on.
        channels: of the images, 1 or 3.
        num_classes: 0: unconditional; else as in StyleGAN2, a projection of mapped labels.

    Raises:
        ValueError: an unsupported resolution.
    """

    taps: Tensor

    def __init__(
        self,
        options: WaveletOptions = WaveletOptions(),
        *,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if resolution < 16:
            raise ValueError(f"resolution is {resolution}; StyleSwin's discriminator needs 16 or more")
        self.num_classes = num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        # Wavelets have half the image's side: the first feature map, too. Widths are those of the authors' sides.
        sides = feature_sides(resolution)[::-1]
        widths = {side: min(options.channel_base // side, options.channel_max) for side in sides}
        given = [widths[sides[0]], *(widths[side] for side in sides[2:])]
        kind = NormedConv2d if options.spectral_norm else _equalized
        self.from_images = nn.ModuleList(kind(4 * channels, width, 1) for width in (*given[:-1], widths[4]))
        self.blocks = nn.ModuleList(
            nn.Sequential(kind(before, before, 3), kind(before, after, 3, halve=True))
            for before, after in pairwise(given)
        )
        features, last = options.minibatch_features, widths[4]
        self.deviation = MinibatchDeviation(options.minibatch_group, features) if features else None
        self.convolution = kind(last + features, last, 3)
        outputs = last if num_classes else 1
        if options.spectral_norm:
            self.hidden: nn.Module = parametrizations.spectral_norm(nn.Linear(last * 16, last, bias=False))
            self.output: nn.Module = parametrizations.spectral_norm(nn.Linear(last, outputs))
            self.hidden_bias = nn.Parameter(torch.zeros(last))
        else:
            self.hidden = EqualizedLinear(last * 16, last, activation="lrelu")
            self.output = EqualizedLinear(last, outputs)
        mapping = MappingOptions(layers=options.mapping_layers, w_dim=last)
        self.mapping = MappingNetwork(mapping, latent_dim=0, num_classes=num_classes) if num_classes else None
        self.spectral_norm = options.spectral_norm
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images, at least float32 ``[N]``; positive means real.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels; or N is no multiple of ``minibatch_group``.
        """
        labels = required_labels(labels, self.num_classes)
        waves = haar(in_full_precision(images))
        x: Tensor | None = None
        for number, from_image in enumerate(self.from_images):
            if number:
                waves = haar(downsample(inverse_haar(waves), self.taps))
            seen = from_image(like_weights(waves, self))
            x = seen if x is None else x + seen
            if number < len(self.blocks):
                x = checkpointed(self.blocks[number], x, enabled=self.gradient_checkpointing)
        assert x is not None
        return self.judged(x, labels)

    def head(self, x: Tensor) -> Tensor:
        """See ``StyleDiscriminator``."""
        if not self.spectral_norm:
            found: Tensor = self.output(self.hidden(x))
            return found
        hidden, output = (in_full_precision(layer.weight) for layer in (self.hidden, self.output))  # type: ignore[arg-type]
        x = bias_act(F.linear(x, hidden), self.hidden_bias, "lrelu")
        return F.linear(x, output, in_full_precision(self.output.bias))  # type: ignore[arg-type]


def _equalized(inputs: int, outputs: int, kernel: int, *, halve: bool = False) -> EqualizedConv2d:
    return EqualizedConv2d(inputs, outputs, kernel, activation="lrelu", halve=halve)
