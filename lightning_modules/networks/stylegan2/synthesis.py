"""StyleGAN2's synthesis network and generator (Karras et al. 2020, arXiv:1912.04958), with skip outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive, Whole
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import in_full_precision, inner_dtype, weights_dtype
from lightning_modules.networks.stylegan2.filters import setup_filter, upsample
from lightning_modules.networks.stylegan2.generator import NoiseInput, StyleGenerator
from lightning_modules.networks.stylegan2.layers import EqualizedLinear, bias_act, modulated_conv2d


@dataclass(frozen=True)
class SynthesisOptions:
    """The synthesis network.

    Args:
        channel_base: a feature map of side r has ``channel_base`` / r channels,
        channel_max: but no more than this.
        half_resolutions: how many of the highest resolutions run in 16 bits under autocast; the others in float32.
        clamp: bound of what a convolution gives, against overflow in float16; None: none.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 32768
    channel_max: Count = 512
    half_resolutions: Whole = 4
    clamp: Positive | None = 256.0
    gradient_checkpointing: bool = False


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU.

    Args:
        inputs, outputs: channels.
        w_dim: dimensions of w.
        resolution: side of its result in pixels.
        doubles: whether it doubles the side.
        clamp: bound of the result; None: none.
    """

    taps: Tensor
    noise_constant: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, *, doubles: bool = False, clamp: float | None
    ) -> None:
        super().__init__()
        self.resolution, self.doubles, self.clamp = resolution, doubles, clamp
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # Not a scalar, which ZeRO cannot shard.
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise_constant", torch.randn(resolution, resolution))
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | Literal["constant", "none"]) -> Tensor:
        """Features ``[N, inputs, H, W]`` and w ``[N, w_dim]`` to ``[N, outputs, resolution, resolution]``.

        Args:
            x: features.
            w: the style's latent.
            noise: ``[N, 1, resolution, resolution]``, ``constant`` or ``none``.
        """
        taps = self.taps if self.doubles else None
        x = modulated_conv2d(x, self.weight, in_full_precision(self.affine(w)), upsample_taps=taps)
        if not isinstance(noise, str) or noise == "constant":
            drawn = self.noise_constant if isinstance(noise, str) else noise
            x = x + (drawn * self.noise_strength).to(x.dtype)
        return bias_act(x, self.bias, "lrelu", clamp=self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution, without demodulation, to the image's channels."""

    def __init__(self, inputs: int, channels: int, w_dim: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features ``[N, inputs, H, W]`` and w ``[N, w_dim]`` to ``[N, channels, H, W]``, at least float32."""
        styles = in_full_precision(self.affine(w)) / math.sqrt(self.weight.shape[1])
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return in_full_precision(bias_act(x, self.bias, clamp=self.clamp))


class StyledBlock(nn.Module):
    """The layers of one resolution.

    Subclasses set the attributes below, and call ``features`` where autocast is off.
    """

    #: Whether it runs in 16 bits under autocast.
    sixteen_bits: bool
    #: Each takes features, a w and noise.
    layers: nn.ModuleList
    #: ``[channels, H, W]``; the first block alone has it.
    constant: nn.Parameter

    def features(
        self, x: Tensor | None, ws: Tensor, noise: Sequence[Tensor] | Literal["constant", "none"], dtype: torch.dtype
    ) -> Tensor:
        """Features of half the side to this block's.

        Args:
            x: ``[N, inputs, H/2, W/2]``; None for the first block.
            ws: one w for each layer, ``[N, layers, w_dim]`` or more.
            noise: of each layer.
            dtype: in which the layers compute: see ``dtype_on``.
        """
        x = (self.constant.expand(ws.shape[0], -1, -1, -1) if x is None else x).to(dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, ws[:, number], noise if isinstance(noise, str) else noise[number])
        return x

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """In which the layers compute, by the autocast at this moment."""
        return inner_dtype(self, device) if self.sixteen_bits else weights_dtype(self)


class SynthesisBlock(StyledBlock):
    """The layers of one resolution, and their share in the image.

    Args:
        inputs: channels of the features of half the side; 0: the first block, which begins with a learned constant.
        outputs: channels.
        w_dim: dimensions of w.
        resolution: side in pixels.
        channels: of the image.
        half: whether it runs in 16 bits under autocast.
        clamp: bound of what a convolution gives; None: none.
    """

    taps: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, channels: int, *, half: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.sixteen_bits = half
        self.register_buffer("taps", setup_filter(), persistent=False)
        if not inputs:
            self.constant = nn.Parameter(torch.randn(outputs, resolution, resolution))
        sizes = [(inputs, outputs), (outputs, outputs)] if inputs else [(outputs, outputs)]
        self.layers = nn.ModuleList(
            SynthesisLayer(before, after, w_dim, resolution, doubles=bool(inputs) and number == 0, clamp=clamp)
            for number, (before, after) in enumerate(sizes)
        )
        self.to_rgb = ToRGB(outputs, channels, w_dim, clamp=clamp)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        noise: Sequence[Tensor] | Literal["constant", "none"],
    ) -> tuple[Tensor, Tensor]:
        """Features and image of half the side to those of this block's.

        Args:
            x: ``[N, inputs, H/2, W/2]``; None for the first block.
            image: ``[N, channels, H/2, W/2]``; None for the first block.
            ws: one w for each layer, and one for the image: ``[N, layers + 1, w_dim]``.
            noise: of each layer.
        """
        dtype = self.dtype_on(ws.device)
        with torch.autocast(ws.device.type, enabled=False):
            x = self.features(x, ws, noise, dtype)
            share = self.to_rgb(x, ws[:, -1])
            return x, share if image is None else upsample(image, self.taps) + share


class SynthesisNetwork(nn.Module):
    """w to images: a learned constant of 4x4, and two layers for each resolution; images of all of them are summed.

    Args:
        options: see ``SynthesisOptions``.
        w_dim: dimensions of w.
        resolution: side of the images in pixels, a power of two from 8 on.
        channels: of the images, 1 or 3.

    Raises:
        ValueError: an unsupported resolution.
    """

    def __init__(
        self,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        w_dim: int = 512,
        resolution: int = 256,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        sides = feature_sides(resolution)
        widths = [0, *(min(options.channel_base // side, options.channel_max) for side in sides)]
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                before,
                after,
                w_dim,
                side,
                channels,
                half=side > 4 and side > resolution >> options.half_resolutions,
                clamp=options.clamp,
            )
            for side, (before, after) in zip(sides, pairwise(widths), strict=True)
        )
        self._noise_sides = [[side] if side == 4 else [side, side] for side in sides]
        #: Latents w that an image takes: one for each layer, and the last image's.
        self.num_ws = sum(map(len, self._noise_sides)) + 1
        #: Sides of the maps of an image's noise, and how many numbers they have together.
        self.noise_sides = tuple(side for sides in self._noise_sides for side in sides)
        self.noise_size = sum(side**2 for side in self.noise_sides)

    def forward(self, ws: Tensor, noise: NoiseInput = "constant") -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each layer: ``[N, num_ws, w_dim]``.
            noise: N(0, 1) ``[N, noise_size]``, ``constant`` or ``none``.
        """
        noises = noise if isinstance(noise, str) else self._by_block(noise)
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for number, block in enumerate(self.blocks):
            count = len(self._noise_sides[number])
            of_block = noises if isinstance(noises, str) else noises[number]
            # The image's w is also that of the next block's first layer.
            own = ws[:, first : first + count + 1]
            x, image = checkpointed(block, x, image, own, of_block, enabled=self.gradient_checkpointing)
            first += count
        assert image is not None
        return image

    def affines(self) -> list[EqualizedLinear]:
        """The maps from w to styles, one for each of the ``num_ws`` latents: of the layers, and of the last image."""
        layers = [module.affine for module in self.modules() if isinstance(module, SynthesisLayer)]
        *_, last = [module.affine for module in self.modules() if isinstance(module, ToRGB)]
        return [*layers, last]

    def _by_block(self, noise: Tensor) -> list[list[Tensor]]:
        parts = iter(noise.split([side**2 for side in self.noise_sides], 1))
        return [[next(parts).view(-1, 1, side, side) for side in sides] for sides in self._noise_sides]


class Generator(StyleGenerator):
    """StyleGAN2's generator; the images' side is a power of two from 8 on."""

    synthesis_kind = SynthesisNetwork
    synthesis: SynthesisNetwork


def feature_sides(resolution: int) -> list[int]:
    """Sides of the feature maps, from 4 to ``resolution``.

    Raises:
        ValueError: the resolution is no power of two, or below 8.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution is {resolution}; StyleGAN2's networks need a power of two, 8 or more")
    return [2**power for power in range(2, resolution.bit_length())]
