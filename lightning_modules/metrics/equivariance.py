"""EQ-T and EQ-R: how well a generator's images move and turn with its input (Karras et al. 2021, appendix E).

arXiv:2106.12423. Both are peak signal-to-noise ratios in dB between the image of a moved input and the moved image:
higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.randomness import mix_key
from lightning_modules.metrics.features import measuring
from lightning_modules.metrics.statistics import SumMetric

#: Samples ``[N]`` with their transformed inputs ``[N, 3, 3]`` to images [N, C, H, W] in [-1, 1].
Renderer = Callable[[Tensor, Tensor], Tensor]
#: EQ-T or EQ-R.
Name = Literal["eqt", "eqr"]
#: Images are moved by up to this share of their side, along each axis.
REACH = 0.125
#: Lobes of the windowed filter that turns an image.
LOBES = 3
#: Places per pixel at which a turned image is looked up.
FINE = 4


class Equivariance(SumMetric):
    """EQ-T and EQ-R of generated images, each moved and turned by amounts of its own.

    A sample's shift and angle depend on (seed, index) alone: any number of ranks measures the same.

    Args:
        render: makes the images; see ``Abilities.transformed``.
        names: ``eqt``, ``eqr`` or both.
        seed: of shifts and angles.
    """

    sums: Tensor

    def __init__(self, render: Renderer, names: Sequence[Name], *, seed: int) -> None:
        super().__init__()
        self.render, self.names, self.seed = render, tuple(names), seed
        self.add_sum("sums", len(self.names), 2)

    def update(self, index: Tensor) -> None:
        """Makes and compares the samples ``index``, int64 [N]; N may be 0."""
        if not len(index):
            return
        with measuring(self.device):
            originals = self.render(index, torch.eye(3, dtype=torch.float32).expand(len(index), 3, 3))
            for row, name in enumerate(self.names):
                measure = self._moved if name == "eqt" else self._turned
                self.sums[row] += measure(index, originals)

    def compute(self) -> dict[str, float]:
        """``{"eqt": ..., "eqr": ...}`` in dB over all ranks, as far as asked for."""
        return {name: decibels(*of_one) for name, of_one in zip(self.names, self.sums, strict=True)}

    def _moved(self, index: Tensor, originals: Tensor) -> Tensor:
        sides = originals.shape[3], originals.shape[2]
        shifts = [
            (round(right * REACH * sides[0]), round(down * REACH * sides[1]))
            for right, down in (self._draws(number, "eqt") for number in index.tolist())
        ]
        found = self.render(index, torch.stack([translation(shift, *sides) for shift in shifts]))
        errors = [translation_error(*of_one) for of_one in zip(originals, found, shifts, strict=True)]
        return torch.stack(errors).sum(0)

    def _turned(self, index: Tensor, originals: Tensor) -> Tensor:
        angles = [self._draws(number, "eqr")[0] * math.pi for number in index.tolist()]
        found = self.render(index, torch.stack([rotation(-angle) for angle in angles]))
        errors = [rotation_error(*of_one) for of_one in zip(originals, found, angles, strict=True)]
        return torch.stack(errors).sum(0)

    def _draws(self, number: int, name: Name) -> tuple[float, float]:
        """Two numbers in [-1, 1)."""
        key = mix_key(self.seed, number, 1 if name == "eqt" else 2)
        return (key >> 32) / 2**31 - 1, (key & 0xFFFFFFFF) / 2**31 - 1


def translation(shift: tuple[int, int], width: int, height: int) -> Tensor:
    """The transform of an input whose image of this size is to move by ``shift`` pixels to the right and down."""
    right, down = shift
    # Also in bf16-true, whose default dtype is another.
    transform = torch.eye(3, dtype=torch.float32)
    transform[0, 2], transform[1, 2] = -right / width, -down / height
    return transform


def translation_error(original: Tensor, moved: Tensor, shift: tuple[int, int]) -> Tensor:
    """Squared error of images whose input was moved by whole pixels, E.1: its sum, and the number of values it is of.

    Args:
        original, moved: [..., C, H, W].
        shift: pixels to the right and down.

    Returns:
        float64 [2].
    """
    right, down = shift
    height, width = original.shape[-2:]
    expected = original[..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    found = moved[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    error = (found.double() - expected).square().sum()
    return torch.stack([error, torch.full_like(error, found.numel())])


def rotation_error(original: Tensor, turned: Tensor, angle: float) -> Tensor:
    """Squared error of images whose input was turned, E.3: its sum, and the number of values it is of.

    Both images lose what a turned pixel grid cannot hold, and a border.

    Args:
        original, turned: [C, H, W] or [N, C, H, W].
        angle: in radians; the input of ``turned`` was transformed by ``rotation(-angle)``.

    Returns:
        float64 [2].
    """
    if original.dim() == 3:
        original, turned = original[None], turned[None]
    expected, inside = _turned(original, rotation(angle).to(original.device))
    kernel = _bandlimit(rotation(-angle).to(original.device), up=1)
    border = len(kernel) // 2
    inner = (..., slice(border, -border), slice(border, -border))
    mask = inside[inner].double()
    return torch.stack([((expected[inner] - _valid(turned, kernel)).double().square() * mask).sum(), mask.sum()])


def decibels(error: Tensor, count: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], of sums over all samples; infinite without an error."""
    mean = (error / count).item()
    return math.inf if mean == 0 else 20 * math.log10(2) - 10 * math.log10(mean)


def rotation(angle: float) -> Tensor:
    """The transform of an input that turns by ``angle``, in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float32)


def _turned(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Images turned by ``matrix`` without aliasing, and where they are known."""
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
    steps = torch.arange(field * up * 2 - 1, device=matrix.device, dtype=torch.float32)
    places = ((steps + 1) / up - field).roll(1 - field * up)
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
