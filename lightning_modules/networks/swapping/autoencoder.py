"""The swapping autoencoder's encoder and decoder (Park et al. 2020, arXiv:2007.00653)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import in_full_precision, inner_dtype, like_weights, weights_dtype
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, bias_act, modulated_conv2d
from lightning_modules.networks.swapping.layers import DecoderBlock, EncoderBlock, EncoderConv2d, unit_vectors


@dataclass(frozen=True)
class SwappingOptions:
    """Encoder and decoder.

    Args:
        structure_channels: of the structure code, a map.
        texture_dim: length of the texture code, a vector.
        halvings: how often the side is halved for the structure code; it is 2^halvings times smaller than the picture.
        texture_halvings: how often after that for the texture code.
        encoder_width: channels at the picture's side; they double with each halving, up to ``texture_dim``.
        decoder_width: channels of the decoder at the picture's side; they double with each halving,
        decoder_max: up to this.
        base_blocks: residual blocks of the decoder at the structure code's side.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    structure_channels: Count = 8
    texture_dim: Count = 2048
    halvings: Count = 4
    texture_halvings: Count = 2
    encoder_width: Count = 32
    decoder_width: Count = 128
    decoder_max: Count = 512
    base_blocks: Count = 2
    gradient_checkpointing: bool = False

    def check_resolution(self, resolution: int) -> None:
        """Checks that pictures of this side in pixels can be encoded.

        Raises:
            ValueError: they cannot; names the option.
        """
        side = resolution >> self.halvings
        least = 2 ** (self.texture_halvings + 1) - 1
        if resolution % 2**self.halvings or side < least:
            raise ValueError(
                f"resolution is {resolution}; it must be a multiple of {2**self.halvings} (autoencoder.halvings), and "
                f"{least * 2**self.halvings} or more for autoencoder.texture_halvings {self.texture_halvings}"
            )


class SwappingEncoder(nn.Module):
    """Images to structure and texture codes.

    Args:
        options: see ``SwappingOptions``.
        channels: of the images.
    """

    def __init__(self, options: SwappingOptions = SwappingOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        down = options.halvings + options.texture_halvings
        widths = [min(options.texture_dim, options.encoder_width * 2**stage) for stage in range(down + 1)]
        middle = widths[options.halvings]
        self.from_rgb = EqualizedConv2d(channels, widths[0], 1, activation="lrelu")
        self.blocks = nn.ModuleList(EncoderBlock(*sizes) for sizes in pairwise(widths[: options.halvings + 1]))
        self.to_structure = nn.Sequential(
            EqualizedConv2d(middle, middle, 1, activation="lrelu"),
            EqualizedConv2d(middle, options.structure_channels, 1),
        )
        self.texture_blocks = nn.ModuleList(
            EncoderConv2d(*sizes, halve=True, borders=False) for sizes in pairwise(widths[options.halvings :])
        )
        self.to_texture = EqualizedLinear(widths[-1], options.texture_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of images.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1].

        Returns:
            Structure ``[N, structure_channels, H / 2^halvings, W / 2^halvings]`` and texture ``[N, texture_dim]``, at
            least float32, of length 1 along dimension 1.
        """
        dtype = inner_dtype(self, images.device)
        x = like_weights(images, self)
        with torch.autocast(x.device.type, enabled=False):
            x = self.from_rgb(x.to(dtype))
            for block in self.blocks:
                x = checkpointed(block, x, enabled=self.gradient_checkpointing)
            structure = self.to_structure(x)
            for block in self.texture_blocks:
                x = block(x)
            texture = self.to_texture(x.mean((2, 3)).to(weights_dtype(self)))
            return unit_vectors(structure), unit_vectors(texture)


class SwappingDecoder(nn.Module):
    """Structure and texture codes to images: residual blocks that the texture modulates.

    Args:
        options: see ``SwappingOptions``.
        channels: of the images.
    """

    def __init__(self, options: SwappingOptions = SwappingOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        texture_dim, count = options.texture_dim, options.halvings
        self.halvings = count
        stages = [min(options.decoder_max, options.decoder_width * 2 ** (count - stage)) for stage in range(count + 1)]
        base = [
            max(options.structure_channels, round((block + 1) / options.base_blocks * stages[0]))
            for block in range(options.base_blocks)
        ]
        self.scale = EqualizedLinear(texture_dim, options.structure_channels)
        self.shift = EqualizedLinear(texture_dim, options.structure_channels)
        sizes = [(pair, False) for pair in pairwise([options.structure_channels, *base])]
        sizes += [(pair, True) for pair in pairwise([base[-1], *stages[1:]])]
        self.blocks = nn.ModuleList(DecoderBlock(*pair, texture_dim, doubles=doubles) for pair, doubles in sizes)
        self.affine = EqualizedLinear(texture_dim, stages[-1], bias_init=1.0)
        self.to_rgb = nn.Parameter(torch.randn(channels, stages[-1], 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def noise_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Sides of the noise of each convolution, for a structure code of this size."""
        found = []
        for block in self.blocks:
            height, width = (2 * side if block.doubles else side for side in (height, width))
            found += [(height, width)] * 2
        return found

    def forward(self, structure: Tensor, texture: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images of codes.

        Args:
            structure: ``[N, structure_channels, h, w]``.
            texture: ``[N, texture_dim]``.
            noise: ``[N, M]`` from N(0, 1), the pixels of all ``noise_sizes`` one after the other; None: none.

        Returns:
            ``[N, channels, H, W]``, at least float32, about [-1, 1].
        """
        dtype = inner_dtype(self, structure.device)
        sizes = self.noise_sizes(*structure.shape[2:])
        maps: list[Tensor | None] = [None] * len(sizes)
        if noise is not None:
            parts = noise.split([height * width for height, width in sizes], 1)
            maps = [part.view(len(noise), 1, *size) for part, size in zip(parts, sizes, strict=True)]
        with torch.autocast(structure.device.type, enabled=False):
            own = weights_dtype(self)
            structure, texture = unit_vectors(structure).to(own), unit_vectors(texture).to(own)
            x = (structure * self.scale(texture)[:, :, None, None] + self.shift(texture)[:, :, None, None]).to(dtype)
            for number, block in enumerate(self.blocks):
                drawn = maps[2 * number : 2 * number + 2]
                x = checkpointed(block, x, texture, *drawn, enabled=self.gradient_checkpointing)
            styles = in_full_precision(self.affine(texture)) / math.sqrt(self.to_rgb.shape[1])
            x = modulated_conv2d(x, self.to_rgb, styles, demodulate=False)
            return in_full_precision(bias_act(x, self.bias))


class SwappingAutoencoderNetwork(nn.Module):
    """Encoder and decoder, which are trained together.

    Args:
        options: see ``SwappingOptions``.
        channels: of the images.
    """

    def __init__(self, options: SwappingOptions = SwappingOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.encoder = SwappingEncoder(options, channels=channels)
        self.decoder = SwappingDecoder(options, channels=channels)
