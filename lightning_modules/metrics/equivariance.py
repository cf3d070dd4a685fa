"""EQ-T and EQ-R: how well a generator's images move and turn with its input (Karras et al. 2021, appendix E).

arXiv:2106.12423. Both are peak signal-to-noise ratios in dB between the image of a moved input and the moved image:
higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: Images [N, C, H, W] in [-1, 1] whose input is transformed: ``[3, 3]``, where each place comes from, in sides.
Renderer = Callable[[Tensor], Tensor]
#: Lobes of the windowed filter that turns an image.
LOBES = 3
#: Places per pixel at which a turned image is looked up.
FINE = 4


def translation_error(render: Renderer, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Squared error of images whose input is moved by whole pixels, E.1: its sum, and the number of values it is of.

    Args:
        render: makes images of a transformed input.
        shift: pixels to the right and down.
    """
    original = render(torch.eye(3))
    right, down = shift
    height, width = original.shape[2:]
    transform = torch.eye(3)
    transform[0, 2], transform[1, 2] = -right / width, -down / height
    moved = render(transform)
    expected = original[:, :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    found = moved[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    return (found.double() - expected).square().sum(), torch.tensor(float(found.numel()), dtype=torch.float64)


def rotation_error(render: Renderer, angle: float) -> tuple[Tensor, Tensor]:
    """Squared error of images whose input is turned, E.3: its sum, and the number of values it is of.

    Both images lose what a turned pixel grid cannot hold, and a border.

    Args:
        render: makes images of a transformed input.
        angle: in radians.
    """
    original = render(torch.eye(3))
    turned = render(_rotation(-angle))
    expected, inside = _turned(original, angle)
    kernel = _bandlimit(_rotation(-angle), up=1)
    border = len(kernel) // 2
    inner = (..., slice(border, -border), slice(border, -border))
    mask = inside[inner]
    return ((expected[inner] - _valid(turned, kernel)).double().square() * mask).sum(), mask.double().sum()


def decibels(error: Tensor, count: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], of sums over all samples; infinite without an error."""
    mean = (error / count).item()
    return math.inf if mean == 0 else 20 * math.log10(2) - 10 * math.log10(mean)


def _rotation(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _turned(x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Images turned by ``angle`` without aliasing, and where they are known."""
    matrix = _rotation(angle)
    kernel = _bandlimit(matrix, up=FINE)
    reach = len(kernel) // 2
    height, width = x.shape[2:]
    spread = x.new_zeros(*x.shape[:2], height * FINE, width * FINE)
    spread[:, :, ::FINE, ::FINE] = x
    # As the authors pad: the pixels' middles are then half a fine place off, which the grid takes back.
    before, after = 2 * reach + FINE // 2, 2 * reach - FINE // 2
    fine = _valid(F.pad(spread, (before, after, before, after)), kernel * FINE**2)
    # Of each place of the result, where it comes from.
    theta = matrix.inverse()
    theta[0, 2] += 1 / FINE / width
    theta[1, 2] += 1 / FINE / height
    theta[0] *= width / (width + reach / FINE * 2)
    theta[1] *= height / (height + reach / FINE * 2)
    grid = F.affine_grid(theta[None, :2].expand(len(x), -1, -1).to(x), list(x.shape), align_corners=False)
    found = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    known = torch.zeros_like(fine)
    border = 2 * reach + 1
    known[:, :, border:-border, border:-border] = 1
    return found, F.grid_sample(known, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _bandlimit(matrix: Tensor, *, up: int) -> Tensor:
    """Taps, odd in number, that let through what both the grid and the transformed grid can hold."""
    reach, field = 2 * LOBES, 64
    places = ((torch.arange(field * up * 2 - 1) + 1) / up - field).roll(1 - field * up)
    y, x = torch.meshgrid(places, places, indexing="ij")
    turned_x, turned_y = (torch.stack([x, y], 2) @ matrix[:2, :2].T).unbind(2)
    sinc = _convolved(torch.sinc(x) * torch.sinc(y), torch.sinc(turned_x) * torch.sinc(turned_y))
    window = _convolved(_lanczos(x) * _lanczos(y), _lanczos(turned_x) * _lanczos(turned_y))
    centre = (field - reach) * up
    taps = (sinc * window).roll([field * up - 1] * 2, dims=[0, 1])[centre:-centre, centre:-centre]
    # Each phase of the up-sampled grid keeps a constant.
    phases = F.pad(taps, (0, 1, 0, 1)).reshape(reach * 2, up, reach * 2, up)
    phases = phases / phases.sum([0, 2], keepdim=True) / up**2
    return phases.reshape(reach * 2 * up, reach * 2 * up)[:-1, :-1]


def _convolved(one: Tensor, other: Tensor) -> Tensor:
    return torch.fft.ifftn(torch.fft.fftn(one) * torch.fft.fftn(other)).real


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < LOBES, torch.sinc(x / LOBES), 0.0)


def _valid(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution where all of the kernel is inside."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.flip(0, 1).to(x).expand(channels, 1, -1, -1), groups=channels)
