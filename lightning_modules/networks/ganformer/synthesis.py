"""GANformer's generator (Hudson & Zitnick 2021, arXiv:2103.01209): StyleGAN2's layers, and attention to components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.ganformer.attention import AttentionOptions, BipartiteAttention, places_on_grid
from lightning_modules.networks.ganformer.mapping import ComponentMapping, ComponentMappingOptions
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import setup_filter, upsample
from lightning_modules.networks.stylegan2.generator import NoiseInput, StyleGenerator
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, modulated_conv2d
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import (
    NoisySynthesis,
    Stage,
    StyledBlock,
    SynthesisLayer,
    SynthesisOptions,
    ToRGB,
)


@dataclass(frozen=True)
class ComponentSynthesisOptions(SynthesisOptions):
    """The synthesis network.

    Args:
        attention: of pixels to components.
    """

    attention: AttentionOptions = AttentionOptions()


class AttendingLayer(SynthesisLayer):
    """StyleGAN2's layer, whose features attend to the components between the convolution and the noise.

    Its ``w`` is that of all components and, at the end, the global one, which is the style of the convolution.

    Args:
        inputs, outputs: channels.
        w_dim: dimensions of the w of one component.
        components: k.
        resolution: side of its result in pixels.
        attention: None: it does not attend.
        doubles: whether it doubles the side.
        clamp: bound of the result; None: none.
        gain: factor of the result.
    """

    grid: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        components: int,
        resolution: int,
        attention: AttentionOptions | None,
        *,
        doubles: bool,
        clamp: float | None,
        gain: float,
    ) -> None:
        super().__init__(inputs, outputs, w_dim, resolution, doubles=doubles, clamp=clamp, gain=gain)
        self.w_dim, self.components = w_dim, components
        self.attention: BipartiteAttention | None = None
        if attention is not None:
            self.attention = BipartiteAttention(outputs, w_dim, w_dim, components, attention)
            self.register_buffer("grid", places_on_grid(resolution, w_dim), persistent=False)

    def forward(
        self, x: Tensor, w: Tensor, noise: Tensor | Literal["constant", "none"], places: Tensor | None = None
    ) -> Tensor:
        """Features ``[N, inputs, H, W]`` and w ``[N, (k + 1) w_dim]`` to ``[N, outputs, resolution, resolution]``.

        Args:
            x: features.
            w: of all components, then the global one.
            noise: ``[N, 1, resolution, resolution]``, ``constant`` or ``none``.
            places: codes of the components' places, ``[k, w_dim]``; None where they are not needed.
        """
        local, whole = w.split([self.components * self.w_dim, self.w_dim], 1)
        x = self.convolved(x, whole)
        if self.attention is not None:
            parts = local.unflatten(1, (self.components, self.w_dim))
            x = self.attention(x.flatten(2), parts, self.grid, places)[0].unflatten(2, x.shape[2:])
        return self.finished(x, noise)

    def kernel(self) -> Tensor:
        """See ``SynthesisLayer``; of equalised learning rate, which counts beside the 1e-8 of the demodulation."""
        return equalized(self.weight)


class AttendingBlock(StyledBlock):
    """The layers of one resolution, beside a skip connection.

    Args:
        stage: its sizes.
        w_dim: dimensions of the w of one component.
        components: k.
        options: of the synthesis network.
    """

    taps: Tensor

    def __init__(self, stage: Stage, w_dim: int, components: int, options: ComponentSynthesisOptions) -> None:
        super().__init__()
        self.sixteen_bits = stage.half
        self.register_buffer("taps", setup_filter(), persistent=False)
        attends = options.attention.first_side <= stage.side <= options.attention.last_side
        sizes = [stage.inputs, stage.outputs] if stage.inputs else [stage.outputs]
        if not stage.inputs:
            self.constant = nn.Parameter(torch.randn(stage.outputs, stage.side, stage.side))
        self.layers = nn.ModuleList(
            AttendingLayer(
                before,
                stage.outputs,
                w_dim,
                components,
                stage.side,
                options.attention if attends else None,
                doubles=len(sizes) == 2 and number == 0,
                clamp=options.clamp,
                gain=math.sqrt(0.5) if number else 1.0,
            )
            for number, before in enumerate(sizes)
        )
        self.skip = EqualizedConv2d(stage.inputs, stage.outputs, 1, bias=False) if stage.inputs else None

    def forward(
        self,
        x: Tensor | None,
        ws: Tensor,
        noise: Sequence[Tensor] | Literal["constant", "none"],
        places: Tensor | None,
    ) -> Tensor:
        """Features of half the side to those of this block's.

        Args:
            x: ``[N, inputs, H/2, W/2]``; None for the first block.
            ws: of each layer: ``[N, layers, (k + 1) w_dim]``.
            noise: of each layer.
            places: codes of the components' places.
        """
        dtype = self.dtype_on(ws.device)
        with torch.autocast(ws.device.type, enabled=False):
            made = self.features(x, ws, noise, dtype, places)
            if self.skip is None or x is None:
                return made
            return made + upsample(self.skip(x.to(dtype), math.sqrt(0.5)), self.taps)


class LastConvolution(nn.Module):
    """A modulated 3x3 convolution without noise, bias and activation, before the image is made."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features ``[N, channels, H, W]`` and w ``[N, w_dim]`` to as many."""
        return modulated_conv2d(x, equalized(self.weight), in_full_precision(self.affine(w)))


class ComponentSynthesis(NoisySynthesis):
    """w of components to images: a learned constant of 4x4, and residual blocks of layers that attend to components.

    Args:
        options: see ``ComponentSynthesisOptions``.
        w_dim: dimensions of the w of one component, a multiple of 4.
        components: k.
        resolution: side of the images in pixels, a power of two from 8 on.
        channels: of the images, 1 or 3.

    Raises:
        ValueError: an unsupported resolution, or sizes that attention cannot have.
    """

    def __init__(
        self,
        options: ComponentSynthesisOptions = ComponentSynthesisOptions(),
        *,
        w_dim: int = 32,
        components: int = 16,
        resolution: int = 256,
        channels: int = 3,
    ) -> None:
        super().__init__(options, resolution)
        check_attention(options.attention, resolution)
        self.w_dim, self.components = w_dim, components
        self.blocks = nn.ModuleList(AttendingBlock(stage, w_dim, components, options) for stage in self.stages)
        width = self.stages[-1].outputs
        self.last = LastConvolution(width, w_dim)
        self.to_rgb = ToRGB(width, channels, w_dim, clamp=options.clamp)
        simplex = options.attention.kind == "simplex"
        self.places = nn.Parameter(torch.rand(components, w_dim)) if simplex else None
        # One for each layer, one for the last convolution, and the image's.
        self.num_ws = sum(self.depths) + 2

    def forward(self, ws: Tensor, noise: NoiseInput = "constant") -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each layer: ``[N, num_ws, (k + 1) w_dim]``.
            noise: N(0, 1) ``[N, noise_size]``, ``constant`` or ``none``.
        """
        x: Tensor | None = None
        of_blocks = ws[:, :-2].split(self.depths, 1)
        for block, own, of_block in zip(self.blocks, of_blocks, self.by_block(noise), strict=True):
            x = checkpointed(block, x, own, of_block, self.places, enabled=self.gradient_checkpointing)
        assert x is not None
        with torch.autocast(ws.device.type, enabled=False):
            whole = ws[:, -2:, -self.w_dim :]
            image: Tensor = self.to_rgb(self.last(x, whole[:, 0]), whole[:, 1])
        return image

    def attention(self, ws: Tensor) -> list[Tensor]:
        """How much each pixel attends to each component, of each attending layer: ``[N, heads, k, side, side]``.

        Args:
            ws: as of ``forward``; the noise is the constant one.
        """
        found: list[Tensor] = []
        layers = [module for module in self.modules() if isinstance(module, BipartiteAttention)]
        hooks = [layer.register_forward_hook(lambda _module, _inputs, made: found.append(made[1])) for layer in layers]
        try:
            self(ws)
        finally:
            for hook in hooks:
                hook.remove()
        return [weights.unflatten(3, (math.isqrt(weights.shape[3]), -1)) for weights in found]

    def affines(self) -> list[EqualizedLinear]:
        """The maps from the global w to styles, one for each of the ``num_ws`` latents."""
        layers = [module.affine for module in self.modules() if isinstance(module, AttendingLayer)]
        return [*layers, self.last.affine, self.to_rgb.affine]


class ComponentGenerator(StyleGenerator):
    """GANformer's generator; the images' side is a power of two from 8 on.

    To what is around it, the w of all components, and the global one behind them, are one long w.
    """

    mapping_kind = ComponentMapping
    synthesis_kind = ComponentSynthesis
    mapping: ComponentMapping
    synthesis: ComponentSynthesis

    def synthesis_sizes(self, mapping: MappingOptions) -> dict[str, int]:
        """See ``StyleGenerator``."""
        assert isinstance(mapping, ComponentMappingOptions)
        return {"w_dim": mapping.w_dim, "components": mapping.components}

    def style_weights(self) -> list[Tensor]:
        """See ``StyleGenerator``: styles are of the global latent alone, so that all other columns are 0."""
        before = self.mapping.w_dim - self.mapping.options.w_dim
        return [F.pad(weight, (before, 0)) for weight in super().style_weights()]


def equalized(weight: Tensor) -> Tensor:
    """A kernel ``[O, I, K, K]`` over the root of its number of inputs."""
    return weight / math.sqrt(weight[0].numel())


def check_attention(options: AttentionOptions, resolution: int) -> None:
    """Raises a ValueError where no feature map attends."""
    if options.first_side > min(options.last_side, resolution):
        raise ValueError(
            f"attention.first_side is {options.first_side}; it must be attention.last_side ({options.last_side}) or "
            f"less, and the images' side ({resolution}) or less"
        )
