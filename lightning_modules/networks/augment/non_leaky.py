"""EDM's non-leaky augmentation (Karras et al. 2022, arXiv:2206.00364, appendix F.2).

The network is told what was done to each image, so that it makes none that look so: told nothing, it makes originals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_modules.networks.augment.columns import Columns, Noise
from lightning_modules.networks.augment.resampling import SYM6, warp
from lightning_modules.networks.augment.transforms import SCALE_STD, TRANSLATION_STD, diagonal, rotation, translation
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import setup_filter

#: Length of the vector that describes what was done to an image.
LABELS = 9
#: Random numbers that are drawn for each image.
UNIFORMS, NORMALS = 11, 4


class NonLeakyAugmentation(nn.Module):
    """Mirrors half of the images; mirrors upside down, scales, turns, stretches and moves a share of them.

    Args:
        p: probability of each transformation but the first; the authors have 0.12 for CIFAR-10, 0.15 for faces.
    """

    taps: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("taps", setup_filter(SYM6), persistent=False)

    def forward(self, images: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Augmented images like ``images`` ``[N, C, H, W]``, and what was done to them, ``[N, 9]``; at least float32.

        Args:
            images: in [-1, 1].
            noise: draws the transformations.
        """
        count = len(images)
        return self.transformed(images, noise.rand(count, UNIFORMS), noise.randn(count, NORMALS))

    def transformed(self, images: Tensor, uniforms: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """See ``forward``; out of random numbers ``[N, 11]`` in [0, 1) and ``[N, 4]``, standard normal."""
        with torch.autocast(images.device.type, enabled=False):
            images = in_full_precision(images)
            height, width = images.shape[2:]
            columns = Columns(uniforms, normals, uniforms.new_full((), self.p))
            mirrored = columns.gated(torch.floor(columns.uniform() * 2), 0, uniforms.new_ones(()))
            images = torch.where(mirrored[:, None, None, None] == 1, images.flip(3), images)
            upside_down = columns.gated(torch.floor(columns.uniform() * 2), 0)
            images = torch.where(upside_down[:, None, None, None] == 1, images.flip(2), images)
            size = columns.gated(columns.normal(), 0)
            scale = torch.exp2(size * SCALE_STD)
            inverse = diagonal(1 / scale, 1 / scale)
            angle = columns.gated((columns.uniform() * 2 - 1) * math.pi, 0)
            inverse = inverse @ rotation(angle)
            stretch, direction = columns.normal(), (columns.uniform() * 2 - 1) * math.pi
            stretch = columns.gated(stretch, 0)
            # Half of them along the picture's own axes.
            direction = columns.gated(direction, 0, uniforms.new_full((), 0.5))
            factor = torch.exp2(stretch * SCALE_STD)
            inverse = inverse @ rotation(-direction) @ diagonal(1 / factor, factor) @ rotation(direction)
            moved = columns.gated(torch.stack([columns.normal(), columns.normal()], 1), 0)
            x, y = moved.unbind(1)
            inverse = inverse @ translation(-x * width * TRANSLATION_STD, -y * height * TRANSLATION_STD)
            done = [mirrored, upside_down, size, angle.cos() - 1, angle.sin()]
            done += [stretch * direction.cos(), stretch * direction.sin(), x, y]
            return warp(images, inverse.to(images.dtype), in_full_precision(self.taps)), torch.stack(done, 1)
