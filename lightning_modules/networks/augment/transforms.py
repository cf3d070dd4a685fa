"""The 18 transformations of ADA (Karras et al. 2020, arXiv:2006.06676, appendix B), out of columns of random numbers.

Those of the geometry become one matrix for each image, those of colours another one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.augment.columns import Columns

#: Standard deviations of logarithms to the base 2: scaling and contrast; and of the others.
SCALE_STD, CONTRAST_STD, SATURATION_STD, BRIGHTNESS_STD, FILTER_STD, NOISE_STD = 0.2, 0.5, 1.0, 0.2, 1.0, 0.1
#: As shares of the image's side.
TRANSLATION, TRANSLATION_STD, CUTOUT = 0.125, 0.125, 0.5


def blitting(columns: Columns, height: int, width: int) -> Tensor:
    """Mirroring, turns by 90 degrees, translation by whole pixels: inverse matrices ``[N, 3, 3]``."""
    flip = columns.gated(torch.floor(columns.uniform() * 2), 0)
    inverse = diagonal(1 - 2 * flip, torch.ones_like(flip))
    turns = columns.gated(torch.floor(columns.uniform() * 4), 0)
    inverse = inverse @ rotation(math.pi / 2 * turns)
    offsets = torch.stack([columns.uniform(), columns.uniform()], 1)
    offsets = columns.gated((offsets * 2 - 1) * TRANSLATION, 0)
    return inverse @ translation(-torch.round(offsets[:, 0] * width), -torch.round(offsets[:, 1] * height))


def general_geometry(columns: Columns, height: int, width: int) -> Tensor:
    """Scaling, rotation before and after anisotropic scaling, and translation: inverse matrices ``[N, 3, 3]``."""
    scale = columns.gated(torch.exp2(columns.normal() * SCALE_STD), 1)
    inverse = diagonal(1 / scale, 1 / scale)
    # One of the two rotations happens with the probability p.
    rotates = 1 - torch.sqrt((1 - columns.p).clamp(0, 1))
    angle = columns.gated((columns.uniform() * 2 - 1) * math.pi, 0, rotates)
    inverse = inverse @ rotation(angle)
    stretch = columns.gated(torch.exp2(columns.normal() * SCALE_STD), 1)
    inverse = inverse @ diagonal(1 / stretch, stretch)
    angle = columns.gated((columns.uniform() * 2 - 1) * math.pi, 0, rotates)
    inverse = inverse @ rotation(angle)
    offsets = columns.gated(torch.stack([columns.normal(), columns.normal()], 1) * TRANSLATION_STD, 0)
    return inverse @ translation(-offsets[:, 0] * width, -offsets[:, 1] * height)


def colors(columns: Columns) -> Tensor:
    """Brightness, contrast, inverted luma, hue and saturation: matrices ``[N, 4, 4]`` of homogeneous RGB."""
    brightness = columns.gated(columns.normal() * BRIGHTNESS_STD, 0)
    identity = torch.eye(4, dtype=brightness.dtype, device=brightness.device)
    matrix = identity.repeat(len(brightness), 1, 1)
    matrix[:, :3, 3] = brightness[:, None]
    contrast = columns.gated(torch.exp2(columns.normal() * CONTRAST_STD), 1)
    matrix = torch.cat([matrix[:, :3] * contrast[:, None, None], matrix[:, 3:]], 1)
    # Projections onto the axis of grey colours, and onto the plane of colourfulness.
    grey = torch.zeros_like(identity)
    grey[:3, :3] = 1 / 3
    color = identity - grey
    flip = columns.gated(torch.floor(columns.uniform() * 2), 0)
    matrix = (identity - 2 * grey * flip[:, None, None]) @ matrix
    matrix = about_grey(columns.gated((columns.uniform() * 2 - 1) * math.pi, 0)) @ matrix
    saturation = columns.gated(torch.exp2(columns.normal() * SATURATION_STD), 1)
    return (grey + color * saturation[:, None, None]) @ matrix


def grey_levels(columns: Columns) -> Tensor:
    """What ``colors`` does to grey images, which have neither hue nor saturation."""
    brightness = columns.gated(columns.normal() * BRIGHTNESS_STD, 0)
    contrast = columns.gated(torch.exp2(columns.normal() * CONTRAST_STD), 1)
    flip = columns.gated(torch.floor(columns.uniform() * 2), 0)
    columns.skip(uniforms=3, normals=1)
    sign = 1 - 2 * flip
    return torch.stack([contrast * sign, contrast * brightness * sign], 1)


def recolored(images: Tensor, columns: Columns) -> Tensor:
    """Images ``[N, 3 or 1, H, W]`` in other colours."""
    if images.shape[1] == 1:
        gain, offset = grey_levels(columns)[:, :, None, None, None].to(images.dtype).unbind(1)
        return images * gain + offset
    matrix = colors(columns).to(images.dtype)
    return (matrix[:, :3, :3] @ images.flatten(2) + matrix[:, :3, 3:]).view_as(images)


def filter_bank() -> Tensor:
    """Filters of four bands, from the lowest frequencies to the highest, ``[4, 43]``; they sum to the identity.

    Out of Daubechies' filter with two vanishing moments (1992), in three octaves.
    """
    root = math.sqrt(3)
    low = torch.tensor([1 - root, 3 - root, 3 + root, 1 + root], dtype=torch.float64) / (4 * math.sqrt(2))
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    passing, rest = (_convolved(taps, taps.flip(0)) / 2 for taps in (low, high))
    bands, so_far = [], torch.ones(1, dtype=torch.float64)
    for octave in range(3):
        bands.append(_convolved(so_far, _dilated(rest, 2**octave)))
        so_far = _convolved(so_far, _dilated(passing, 2**octave))
    bands.append(so_far)
    length = len(so_far)
    centred = [F.pad(band, ((length - len(band)) // 2,) * 2) for band in bands[::-1]]
    return torch.stack(centred).to(torch.get_default_dtype())


def refiltered(images: Tensor, columns: Columns, bank: Tensor) -> Tensor:
    """Images whose four bands of frequencies are amplified, each by another factor, at the same expected power."""
    count, channels, height, width = images.shape
    # Power falls with the frequency.
    power = torch.full((4,), 1 / 13, dtype=bank.dtype, device=bank.device)
    power[0] = 10 / 13
    gains = torch.ones(count, 4, dtype=bank.dtype, device=bank.device)
    for band in range(4):
        factor = columns.gated(torch.exp2(columns.normal() * FILTER_STD), 1)
        own = torch.ones_like(gains)
        own[:, band] = factor
        gains = gains * own / (power * own.square()).sum(1, keepdim=True).sqrt()
    kernels = (gains @ bank)[:, None].expand(-1, channels, -1).reshape(count * channels, -1).to(images.dtype)
    around = bank.shape[1] // 2
    x = F.pad(images.reshape(1, count * channels, height, width), (around,) * 4, mode="reflect")
    x = F.conv2d(x, kernels[:, None, None, :], groups=count * channels)
    return F.conv2d(x, kernels[:, None, :, None], groups=count * channels).view_as(images)


def noisy(images: Tensor, columns: Columns, field: Tensor) -> Tensor:
    """Images with ``field``, N(0, 1) of their shape, of another strength each."""
    sigma = columns.gated(columns.normal().abs() * NOISE_STD, 0)
    return images + field * sigma[:, None, None, None]


def cut_out(images: Tensor, columns: Columns) -> Tensor:
    """Images with a square of 0, of half their side, at random."""
    centre = torch.stack([columns.uniform(), columns.uniform()], 1)
    size = columns.gated(torch.full_like(centre[:, 0], CUTOUT), 0)[:, None]
    outside = []
    for axis, side in enumerate((images.shape[3], images.shape[2])):
        places = (torch.arange(side, device=images.device) + 0.5) / side
        outside.append((places - centre[:, axis, None]).abs() >= size / 2)
    kept = outside[0][:, None, None, :] | outside[1][:, None, :, None]
    return images * kept.to(images.dtype)


# ---- matrices -------------------------------------------------------------------------------------------------------


def diagonal(x: Tensor, y: Tensor) -> Tensor:
    """Scaling by x and y ``[N]``: ``[N, 3, 3]``."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], 1))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Translation by x and y ``[N]``: ``[N, 3, 3]``."""
    matrix = torch.diag_embed(torch.ones(len(x), 3, dtype=x.dtype, device=x.device))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def rotation(angle: Tensor) -> Tensor:
    """Rotation by angles ``[N]`` in radians: ``[N, 3, 3]``."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, torch.ones_like(angle)]
    return torch.stack(rows, 1).view(-1, 3, 3)


def about_grey(angle: Tensor) -> Tensor:
    """Rotation of homogeneous RGB about the axis of grey colours by angles ``[N]``: ``[N, 4, 4]`` (Rodrigues)."""
    along = (1 - angle.cos()) / 3
    across = angle.sin() / math.sqrt(3)
    same, less, more, zero = along + angle.cos(), along - across, along + across, torch.zeros_like(angle)
    rows = [same, less, more, zero, more, same, less, zero, less, more, same, zero, zero, zero, zero, zero + 1]
    return torch.stack(rows, 1).view(-1, 4, 4)


def _convolved(one: Tensor, other: Tensor) -> Tensor:
    return F.conv1d(one[None, None], other.flip(0)[None, None], padding=len(other) - 1)[0, 0]


def _dilated(taps: Tensor, step: int) -> Tensor:
    spread = taps.new_zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread
