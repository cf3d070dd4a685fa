"""StyleSwin's generator (Zhang et al. 2022, arXiv:2112.10762)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.networks.stylegan2.filters import setup_filter, upsample
from lightning_modules.networks.stylegan2.generator import StyleGenerator
from lightning_modules.networks.stylegan2.layers import EqualizedLinear
from lightning_modules.networks.stylegan2.synthesis import feature_sides
from lightning_modules.networks.styleswin.blocks import Doubling, SwinBlock


@dataclass(frozen=True)
class SwinOptions:
    """The synthesis network.

    Args:
        channel_base: a feature map of side r has ``channel_base`` / r channels; the authors have 32768 at 256 px, and
            16384 at 1024 px;
        channel_max: but no more than this.
        head_channels: channels of a head; but there are 4 heads or more.
        window: side of the windows in pixels; smaller maps are one window.
        mlp_ratio: features between the two linear layers of a block, in times its channels.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    channel_base: Count = 32768
    channel_max: Count = 512
    head_channels: Count = 32
    window: Count = 8
    mlp_ratio: Positive = 4.0
    gradient_checkpointing: bool = False


class SwinSynthesis(nn.Module):
    """One w for each block to images: two blocks for each side, the sum of whose images is the image.

    Args:
        options: see ``SwinOptions``.
        w_dim: dimensions of w.
        resolution: side of the images in pixels, a power of two from 8 on.
        channels: of the images, 1 or 3.

    Raises:
        ValueError: an unsupported resolution, or channels that heads cannot share.
    """

    taps: Tensor
    #: It takes no noise.
    noise_sides: tuple[int, ...] = ()
    noise_size = 0

    def __init__(
        self,
        options: SwinOptions = SwinOptions(),
        *,
        w_dim: int = 512,
        resolution: int = 256,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        sides = feature_sides(resolution)
        widths = [min(options.channel_base // side, options.channel_max) for side in sides]
        heads = [max(width // options.head_channels, 4) for width in widths]
        _check(sides, widths, heads, options.window)
        self.constant = nn.Parameter(torch.randn(4, 4, widths[0]))
        self.blocks = nn.ModuleList(
            SwinBlock(width, side, window=options.window, heads=of_side, w_dim=w_dim, mlp_ratio=options.mlp_ratio)
            for side, width, of_side in zip(sides, widths, heads, strict=True)
            for _ in range(2)
        )
        self.doublings = nn.ModuleList(
            Doubling(before, after, side) for (before, after), side in zip(pairwise(widths), sides[1:], strict=True)
        )
        # Behind each doubling, and behind the last blocks.
        self.to_images = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in (*widths[1:], widths[-1]))
        self.register_buffer("taps", setup_filter(), persistent=False)
        self.num_ws = len(self.blocks)
        self._initialise()

    def forward(self, ws: Tensor, noise: object = None) -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each block: ``[N, num_ws, w_dim]``.
            noise: ignored.
        """
        x = like_weights(self.constant, self).expand(ws.shape[0], -1, -1, -1)
        image: Tensor | None = None
        for number, to_image in enumerate(self.to_images):
            for place in (2 * number, 2 * number + 1):
                x = checkpointed(self.blocks[place], x, ws[:, place], enabled=self.gradient_checkpointing)
            doubled = number < len(self.doublings)
            if doubled:
                x = self.doublings[number](x)
            part = in_full_precision(to_image(x.permute(0, 3, 1, 2)))
            if image is not None:
                part = part + (upsample(image, self.taps) if doubled else image)
            image = part
        assert image is not None
        return image

    def affines(self) -> list[EqualizedLinear]:
        """The maps from w to styles, one for each of the ``num_ws`` latents."""
        return [block.affine for block in self.blocks if isinstance(block, SwinBlock)]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain=0.02)
            bias = getattr(module, "bias", None)
            if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(bias, Tensor):
                nn.init.zeros_(bias)
        for name, parameter in self.named_parameters():
            if name.endswith("biases"):
                nn.init.trunc_normal_(parameter, std=0.02)


class SwinGenerator(StyleGenerator):
    """StyleGAN2's mapping network, then windows of attention; the images' side is a power of two from 8 on."""

    synthesis_kind = SwinSynthesis
    synthesis: SwinSynthesis


def _check(sides: list[int], widths: list[int], heads: list[int], window: int) -> None:
    for side, width, count in zip(sides, widths, heads, strict=True):
        if width < 8 or width % 4 or count % 2 or width % count:
            raise ValueError(
                f"synthesis.channel_base gives {width} channels at {side} px, for {count} heads: they must be 8 or "
                "more, a multiple of 4 and of an even number of heads; powers of two fit"
            )
        if side > window and side % window:
            raise ValueError(f"synthesis.window is {window}; it must divide {side}: take a power of two")
