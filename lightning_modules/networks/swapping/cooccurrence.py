"""The swapping autoencoder's discriminator of patches that come together (Park et al. 2020, arXiv:2007.00653)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import at_least_float32, inner_dtype, like_weights, weights_dtype
from lightning_modules.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear
from lightning_modules.networks.swapping.layers import CriticBlock


@dataclass(frozen=True)
class CooccurrenceOptions:
    """The discriminator of patches.

    Args:
        patch_size: side of a patch in pixels, a power of two from 8 on.
        width: channels at 4 times 4 pixels and half as many at each doubling of the side,
        width_max: but no more than this, which is also the features' number of channels.
        hidden: units of the layers that compare features.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.

    Raises:
        ValueError: a patch size that is no power of two.
    """

    patch_size: Count = 128
    width: Count = 1024
    width_max: Count = 384
    hidden: Count = 2048
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.patch_size < 8 or self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size is {self.patch_size}; it must be a power of two from 8 on")


class CooccurrenceDiscriminator(nn.Module):
    """Patches and the reference patches of a picture to logits: may they be of one picture?

    Args:
        options: see ``CooccurrenceOptions``.
        channels: of the images.
    """

    def __init__(self, options: CooccurrenceOptions = CooccurrenceOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        sides = [options.patch_size >> stage for stage in range(options.patch_size.bit_length() - 2)]
        # Only the features of the smallest sides reach the bound in the authors' networks.
        bounds = [options.width_max if side <= 16 else options.width for side in sides]
        widths = [max(1, min(options.width * 4 // side, bound)) for side, bound in zip(sides, bounds, strict=True)]
        largest, hidden = options.width_max, options.hidden
        self.from_rgb = EqualizedConv2d(channels, widths[0], 3, activation="lrelu")
        self.blocks = nn.ModuleList(CriticBlock(*pair, halve=True) for pair in pairwise(widths))
        self.blocks.append(CriticBlock(widths[-1], 2 * largest, halve=False))
        self.last = EqualizedConv2d(2 * largest, largest, 3, activation="lrelu")
        units = [2 * largest * 2 * 2, hidden, hidden, max(1, hidden // 2)]
        self.compared = nn.Sequential(*(EqualizedLinear(*pair, activation="lrelu") for pair in pairwise(units)))
        self.output = EqualizedLinear(units[-1], 1)

    def features(self, patches: Tensor) -> Tensor:
        """Features ``[N, T, F]`` of patches ``[N, T, C, patch_size, patch_size]`` in [-1, 1], at least float32."""
        count, number = patches.shape[:2]
        x = like_weights(patches.flatten(0, 1), self)
        dtype = inner_dtype(self, x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = self.from_rgb(x.to(dtype))
            for block in self.blocks:
                x = checkpointed(block, x, enabled=self.gradient_checkpointing)
            # Without borders: 4 x 4 become 2 x 2.
            x = self.last(x)[:, :, 1:-1, 1:-1]
            return x.flatten(1).to(at_least_float32(weights_dtype(self))).unflatten(0, (count, number))

    def forward(self, reference: Tensor, features: Tensor) -> Tensor:
        """Logits ``[N, T]`` of features ``[N, T, F]`` beside those of a reference, ``[N, T or 1, F]``."""
        with torch.autocast(features.device.type, enabled=False):
            own = weights_dtype(self)
            pairs = torch.cat([reference.expand_as(features), features], 2).to(own)
            logits = self.output(self.compared(pairs.flatten(0, 1)))
        return logits.to(at_least_float32(own)).view(features.shape[:2])


def crops(images: Tensor, noise: Tensor, *, size: int, scales: tuple[float, float]) -> Tensor:
    """Crops of random place, size, shape and mirroring, brought to one size by bilinear interpolation.

    Args:
        images: ``[N, C, H, W]``.
        noise: ``[N, T, 5]`` in [0, 1), of T crops of each: mirrored or not, width, height, and place across and down.
        size: side of a crop, in pixels.
        scales: smallest and largest side of what is cut, as a share of the picture's.

    Returns:
        ``[N, T, C, size, size]``.
    """
    count, number = noise.shape[:2]
    noise = noise.flatten(0, 1).to(images.dtype)
    mirrored = (noise[:, 0].round() * 2 - 1)[:, None, None]
    scale = noise[:, 1:3] * (scales[1] - scales[0]) + scales[0]
    offset = (noise[:, 3:5] * 2 - 1) * (1 - scale)
    line = torch.linspace(-1, 1, size, device=images.device, dtype=images.dtype)
    across = (line[None, None, :] * mirrored).expand(-1, size, -1)
    down = line[None, :, None].expand(len(noise), -1, size)
    grid = torch.stack([across, down], 3) * scale[:, None, None] + offset[:, None, None]
    repeated = images.repeat_interleave(number, 0)
    return F.grid_sample(repeated, grid, align_corners=False).unflatten(0, (count, number))
