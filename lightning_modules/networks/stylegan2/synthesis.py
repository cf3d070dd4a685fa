"""StyleGAN2's synthesis network and generator (Karras et al. 2020, arXiv:1912.04958), with skip outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

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
        gain: factor of the result.
    """

    taps: Tensor
    noise_constant: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        *,
        doubles: bool = False,
        clamp: float | None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.resolution, self.doubles, self.clamp, self.gain = resolution, doubles, clamp, gain
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
        return self.finished(self.convolved(x, w), noise)

    def convolved(self, x: Tensor, w: Tensor) -> Tensor:
        """The convolution alone: ``[N, outputs, resolution, resolution]``."""
        taps = self.taps if self.doubles else None
        return modulated_conv2d(x, self.kernel(), in_full_precision(self.affine(w)), upsample_taps=taps)

    def kernel(self) -> Tensor:
        """The weights of the convolution, ``[outputs, inputs, 3, 3]``; demodulation takes any factor away."""
        return self.weight

    def finished(self, x: Tensor, noise: Tensor | Literal["constant", "none"]) -> Tensor:
        """What comes after the convolution: noise, bias and leaky ReLU."""
        if not isinstance(noise, str) or noise == "constant":
            drawn = self.noise_constant if isinstance(noise, str) else noise
            x = x + (drawn * self.noise_strength).to(x.dtype)
        return bias_act(x, self.bias, "lrelu", gain=self.gain, clamp=self.clamp)


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
    #: Each takes features, a w and noise, and what else ``features`` got.
    layers: nn.ModuleList
    #: ``[channels, H, W]``; the first block alone has it.
    constant: nn.Parameter

    def features(
        self,
        x: Tensor | None,
        ws: Tensor,
        noise: Sequence[Tensor] | Literal["constant", "none"],
        dtype: torch.dtype,
        *more: Tensor | None,
    ) -> Tensor:
        """Features of half the side to this block's.

        Args:
            x: ``[N, inputs, H/2, W/2]``; None for the first block.
            ws: one w for each layer, ``[N, layers, w_dim]`` or more.
            noise: of each layer.
            dtype: in which the layers compute: see ``dtype_on``.
            more: other inputs of each layer.
        """
        x = (self.constant.expand(ws.shape[0], -1, -1, -1) if x is None else x).to(dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, ws[:, number], noise if isinstance(noise, str) else noise[number], *more)
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


class Stage(NamedTuple):
    """The sizes of one resolution's block."""

    #: Channels of the features of half the side; 0: the first block.
    inputs: int
    outputs: int
    #: In pixels.
    side: int
    #: Whether it runs in 16 bits under autocast.
    half: bool


class NoisySynthesis(nn.Module):
    """What synthesis networks share that have two layers with noise for each resolution, and one for the first.

    Subclasses make ``blocks`` of the ``stages``, and count their own latents.

    Args:
        options: see ``SynthesisOptions``.
        resolution: side of the images in pixels, a power of two from 8 on.

    Raises:
        ValueError: an unsupported resolution.
    """

    #: Latents w that an image takes.
    num_ws: int

    def __init__(self, options: SynthesisOptions, resolution: int) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        sides = feature_sides(resolution)
        widths = [0, *(min(options.channel_base // side, options.channel_max) for side in sides)]
        self.stages = [
            Stage(before, after, side, half=side > 4 and side > resolution >> options.half_resolutions)
            for side, (before, after) in zip(sides, pairwise(widths), strict=True)
        ]
        #: Layers of each block.
        self.depths = [1 if side == 4 else 2 for side in sides]
        #: Sides of the maps of an image's noise, and how many numbers they have together.
        self.noise_sides = tuple(side for side, depth in zip(sides, self.depths, strict=True) for _ in range(depth))
        self.noise_size = sum(side**2 for side in self.noise_sides)

    def by_block(self, noise: NoiseInput) -> list[list[Tensor] | Literal["constant", "none"]]:
        """The noise of each block: a map ``[N, 1, side, side]`` for each of its layers, or the word that says which."""
        if isinstance(noise, str):
            return [noise for _ in self.stages]
        parts = iter(noise.split([side**2 for side in self.noise_sides], 1))
        return [
            [next(parts).view(-1, 1, stage.side, stage.side) for _ in range(depth)]
            for stage, depth in zip(self.stages, self.depths, strict=True)
        ]


class SynthesisNetwork(NoisySynthesis):
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
        super().__init__(options, resolution)
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                stage.inputs, stage.outputs, w_dim, stage.side, channels, half=stage.half, clamp=options.clamp
            )
            for stage in self.stages
        )
        # One for each layer, and the last image's.
        self.num_ws = sum(self.depths) + 1

    def forward(self, ws: Tensor, noise: NoiseInput = "constant") -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each layer: ``[N, num_ws, w_dim]``.
            noise: N(0, 1) ``[N, noise_size]``, ``constant`` or ``none``.
        """
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for block, depth, of_block in zip(self.blocks, self.depths, self.by_block(noise), strict=True):
            # The image's w is also that of the next block's first layer.
            own = ws[:, first : first + depth + 1]
            x, image = checkpointed(block, x, image, own, of_block, enabled=self.gradient_checkpointing)
            first += depth
        assert image is not None
        return image

    def affines(self) -> list[EqualizedLinear]:
        """The maps from w to styles, one for each of the ``num_ws`` latents: of the layers, and of the last image."""
        layers = [module.affine for module in self.modules() if isinstance(module, SynthesisLayer)]
        *_, last = [module.affine for module in self.modules() if isinstance(module, ToRGB)]
        return [*layers, last]


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
