"""DiffAugment: all images that the discriminator sees are changed, always (Zhao et al. 2020, arXiv:2006.10738)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Share
from lightning_modules.networks.augment.columns import Noise
from lightning_modules.networks.precision import in_full_precision

#: Random numbers of each image: brightness, saturation, contrast, shift and cut-out along both axes, mirror.
UNIFORMS = 8


@dataclass(frozen=True)
class DiffAugmentOptions:
    """Changes of every image that the discriminator sees, real and generated ones; all of them off by default.

    Args:
        color: whether brightness, saturation and contrast change.
        translation: largest shift along each axis, as a share of the side; zeros come in. The authors' is 0.125.
        cutout: side of the square that is set to 0, as a share of the image's side. The authors' is 0.2 in Projected
            GANs, and 0.5 elsewhere.
        flip: whether half of the images are mirrored.
    """

    color: bool = False
    translation: Share = 0.0
    cutout: Share = 0.0
    flip: bool = False

    @property
    def anything(self) -> bool:
        """Whether anything is on."""
        return bool(self.color or self.translation or self.cutout or self.flip)


class DiffAugment(nn.Module):
    """Changes images as the options say, each by random numbers of its own.

    Args:
        options: see ``DiffAugmentOptions``.
    """

    def __init__(self, options: DiffAugmentOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, images: Tensor, noise: Noise) -> Tensor:
        """Changed images, at least float32, like ``images`` [N, C, H, W]; differentiable in these, any number of times.

        Args:
            images: in [-1, 1]; the result may be outside.
            noise: draws the changes.
        """
        if not self.options.anything:
            return images
        with torch.autocast(images.device.type, enabled=False):
            images = in_full_precision(images)
            return changed(images, noise.rand(len(images), UNIFORMS).to(images.dtype), self.options)


class ConsistentChanges(nn.Module):
    """The changes under which logits are to stay alike, in balanced consistency regularisation (arXiv:2002.04724).

    Mirrors, shifts by up to an eighth, colours, and a cut-out square of half the side, as in StyleSwin's code.
    """

    def forward(self, images: Tensor, noise: Noise) -> Tensor:
        """See ``DiffAugment.forward``."""
        with torch.autocast(images.device.type, enabled=False):
            images = in_full_precision(images)
            return consistently_changed(images, noise.rand(len(images), UNIFORMS).to(images.dtype))


def consistently_changed(images: Tensor, uniforms: Tensor) -> Tensor:
    """The changes of ``ConsistentChanges`` by random numbers in [0, 1), ``[N, UNIFORMS]``."""
    images = changed(images, uniforms, DiffAugmentOptions(flip=True, translation=0.125))
    return changed(images, uniforms, DiffAugmentOptions(color=True, cutout=0.5))


def changed(images: Tensor, uniforms: Tensor, options: DiffAugmentOptions) -> Tensor:
    """Mirrors images, then changes colours, then moves, then cuts out, as ``options`` and random numbers say.

    Args:
        images: ``[N, C, H, W]``.
        uniforms: in [0, 1), ``[N, UNIFORMS]``.
        options: see ``DiffAugmentOptions``.
    """
    numbers = uniforms.unbind(1)
    height, width = images.shape[2:]
    if options.flip:
        images = torch.where((numbers[7] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
    if options.color:
        images = recolored(images, *numbers[:3])
    if options.translation:
        reaches = [int(side * options.translation + 0.5) for side in (height, width)]
        shifts = [
            (number * (2 * reach + 1)).long() - reach for number, reach in zip(numbers[3:5], reaches, strict=True)
        ]
        images = moved(images, *shifts)
    if options.cutout:
        sizes = [int(side * options.cutout + 0.5) for side in (height, width)]
        # The middle may be anywhere, also on the border.
        middles = [
            (number * (side + 1 - size % 2)).long()
            for number, side, size in zip(numbers[5:7], (height, width), sizes, strict=True)
        ]
        images = images * _kept(middles, sizes, height, width).to(images.dtype)
    return images


def recolored(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images with other brightness (+- 0.5), saturation (0 to 2 times) and contrast (0.5 to 1.5 times).

    Args:
        images: ``[N, C, H, W]``.
        brightness, saturation, contrast: in [0, 1), ``[N]``.
    """
    brightness, saturation, contrast = (of.view(-1, 1, 1, 1) for of in (brightness, saturation, contrast))
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (saturation * 2) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def moved(images: Tensor, up: Tensor, left: Tensor) -> Tensor:
    """Images moved by whole pixels, int64 ``[N]``; zeros come in."""
    count, channels, height, width = images.shape
    rows = (torch.arange(height, device=images.device) + up[:, None] + 1).clamp(0, height + 1)
    columns = (torch.arange(width, device=images.device) + left[:, None] + 1).clamp(0, width + 1)
    x = F.pad(images, (1, 1, 1, 1))
    x = x.gather(2, rows[:, None, :, None].expand(count, channels, height, width + 2))
    return x.gather(3, columns[:, None, None, :].expand(count, channels, height, width))


def _kept(middles: list[Tensor], sizes: list[int], height: int, width: int) -> Tensor:
    """False in a rectangle of each image: bool ``[N, 1, height, width]``."""
    inside = []
    for middle, size, side in zip(middles, sizes, (height, width), strict=True):
        places = torch.arange(side, device=middle.device) - (middle[:, None] - size // 2)
        inside.append((places >= 0) & (places < size))
    return ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
