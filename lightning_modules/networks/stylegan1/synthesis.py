"""StyleGAN 1's synthesis network and generator (Karras et al. 2019, arXiv:1812.04958), with progressive growing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Whole
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan1.growing import Growing, doubled
from lightning_modules.networks.stylegan1.layers import ScaledConv2d, StyledLayer
from lightning_modules.networks.stylegan2.generator import NoiseInput, StyleGenerator
from lightning_modules.networks.stylegan2.layers import EqualizedLinear
from lightning_modules.networks.stylegan2.synthesis import StyledBlock, feature_sides


@dataclass(frozen=True)
class SynthesisOptions:
    """The synthesis network.

    Args:
        channel_base: a feature map of side r has ``channel_base`` / r channels,
        channel_max: but no more than this.
        half_resolutions: how many of the highest resolutions run in 16 bits under autocast; the others in float32.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 16384
    channel_max: Count = 512
    half_resolutions: Whole = 4
    gradient_checkpointing: bool = False


class SynthesisBlock(StyledBlock):
    """The two layers of one resolution, and the image that is made of them where the network ends there.

    Args:
        inputs: channels of the features of half the side; 0: the first block, which begins with a learned constant.
        outputs: channels.
        w_dim: dimensions of w.
        resolution: side in pixels.
        channels: of the image.
        half: whether it runs in 16 bits under autocast.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, channels: int, *, half: bool) -> None:
        super().__init__()
        self.sixteen_bits = half
        if not inputs:
            self.constant = nn.Parameter(torch.ones(outputs, resolution, resolution))
        doubling = ScaledConv2d(inputs, outputs, 3, resample="double", bias=False) if inputs else None
        convolutions = [doubling, ScaledConv2d(outputs, outputs, 3, bias=False)]
        self.layers = nn.ModuleList(StyledLayer(one, outputs, w_dim, resolution) for one in convolutions)
        self.to_rgb = ScaledConv2d(outputs, channels, 1, gain=1.0)

    def forward(
        self, x: Tensor | None, ws: Tensor, noise: Sequence[Tensor] | Literal["constant", "none"]
    ) -> tuple[Tensor, Tensor]:
        """Features of half the side to this block's, and their image, at least float32.

        Args:
            x: ``[N, inputs, H/2, W/2]``; None for the first block.
            ws: one w for each layer: ``[N, 2, w_dim]``.
            noise: of each layer.
        """
        dtype = self.dtype_on(ws.device)
        with torch.autocast(ws.device.type, enabled=False):
            x = self.features(x, ws, noise, dtype)
            return x, in_full_precision(self.to_rgb(x))


class SynthesisNetwork(Growing):
    """w to images: a learned constant of 4x4, and two layers for each resolution.

    The image is that of the resolution that the level of detail asks for, with its pixels repeated; between two levels
    it is a mixture of two resolutions' images.

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
            )
            for side, (before, after) in zip(sides, pairwise(widths), strict=True)
        )
        #: Latents w that an image takes: one for each layer.
        self.num_ws = 2 * len(sides)
        #: Sides of the maps of an image's noise, and how many numbers they have together.
        self.noise_sides = tuple(side for side in sides for _ in range(2))
        self.noise_size = sum(side**2 for side in self.noise_sides)

    def forward(self, ws: Tensor, noise: NoiseInput = "constant") -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each layer: ``[N, num_ws, w_dim]``.
            noise: N(0, 1) ``[N, noise_size]``, ``constant`` or ``none``.
        """
        noises = noise if isinstance(noise, str) else self._by_layer(noise)
        x: Tensor | None = None
        image: Tensor | None = None
        for number, block in enumerate(self.blocks):
            own = slice(2 * number, 2 * number + 2)
            of_block = noises if isinstance(noises, str) else noises[own]
            x, made = checkpointed(block, x, ws[:, own], of_block, enabled=self.gradient_checkpointing)
            image = made if image is None else self.faded(made, doubled(image), len(self.blocks) - 1 - number)
        assert image is not None
        return image

    def affines(self) -> list[EqualizedLinear]:
        """The maps from w to styles, one for each of the ``num_ws`` latents."""
        return [module.affine for module in self.modules() if isinstance(module, StyledLayer)]

    def _by_layer(self, noise: Tensor) -> list[Tensor]:
        parts = noise.split([side**2 for side in self.noise_sides], 1)
        return [part.view(-1, 1, side, side) for part, side in zip(parts, self.noise_sides, strict=True)]


class Generator(StyleGenerator):
    """StyleGAN 1's generator; the images' side is a power of two from 8 on.

    The mapping network is StyleGAN2's: the same function, where biases are kept sqrt(2) times smaller.
    """

    synthesis_kind = SynthesisNetwork
    synthesis: SynthesisNetwork
