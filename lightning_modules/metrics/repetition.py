"""Tiles that repeat themselves in a stylised picture, found by the autocorrelation of what is flat in the photograph.

A network that has learned one small stamp draws it over and over where the photograph gives it nothing to draw: its
autocorrelation there has a peak at each multiple of the stamp's period. A painter's strokes are alike but stand
anywhere: their autocorrelation falls off at the size of a stroke and does not rise again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.metrics.similarity import luminance

#: Largest distance in pixels along each axis at which a picture is compared with itself.
REACH = 32
#: Standard deviation in pixels of the Gaussian mean that is taken away first: what is wider is shading, not strokes.
SHADING = 8.0
#: A place is flat where the photograph's brightness, in [-1, 1], has less than this standard deviation ...
FLAT = 0.06
#: ... in the square of so many pixels around it.
AROUND = 15
#: Correlation over which a place is alike another one.
ALIKE = 0.3
#: Share of a painting's sides, at each edge, that may be its frame.
FRAME = 1 / 32
#: Distances are compared only if so large a share of the places have a partner there.
PARTNERS = 0.25


class Repetition(NamedTuple):
    """The highest peak of the autocorrelation beyond the size of a stroke.

    Args:
        peak: the correlation there, at most 1; 0 without a peak.
        shift: where it is: pixels down and to the right (the opposite one is as high).
        stroke: distance in pixels up to which the painting is like itself.
    """

    peak: float
    shift: tuple[int, int]
    stroke: float


def brightness(pictures: Tensor) -> Tensor:
    """[N, 3, H, W] in [-1, 1] to [N, 1, H, W], in float64."""
    return luminance(pictures.double())


def flat_places(photographs: Tensor, *, limit: float = FLAT) -> Tensor:
    """Where photographs [N, 3, H, W] in [-1, 1] show nothing but one brightness: bool [N, 1, H, W]."""
    grey = brightness(photographs)

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, AROUND, 1, AROUND // 2, count_include_pad=False)

    return around(grey.square()) - around(grey).square() < limit**2


def autocorrelation(pictures: Tensor, places: Tensor, *, reach: int = REACH) -> Tensor:
    """How much the places of pictures are like those at a distance from them.

    The correlation coefficient, over all places of all pictures that have a partner at this distance, of the brightness
    without its shading there and here ("Masked Object Registration in the Fourier Domain", Padfield 2012, of a picture
    with itself).

    Args:
        pictures: [N, 3, H, W] in [-1, 1].
        places: bool [N, 1, H, W]; the others do not count.
        reach: see ``REACH``.

    Returns:
        float64 [2 reach + 1, 2 reach + 1] in [-1, 1]: distances of -reach ... reach pixels down and to the right; 1 in
        the middle, NaN where fewer than ``PARTNERS`` of the places have a partner.
    """
    mask = places.double()
    x = _without_shading(brightness(pictures), mask) * mask
    size = tuple(side + reach for side in pictures.shape[2:])

    def transform(of: Tensor) -> Tensor:
        return torch.fft.rfft2(of, s=size)

    def product(one: Tensor, other: Tensor) -> Tensor:
        sums = torch.fft.irfft2(one.conj() * other, s=size).sum((0, 1))
        return sums.roll((reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]

    ones, values, squares = transform(mask), transform(x), transform(x.square())
    count = product(ones, ones).round()
    pairs = count.clamp(min=1)
    here, there = product(values, ones), product(ones, values)
    covariance = product(values, values) - here * there / pairs
    variances = [
        product(squares, ones) - here.square() / pairs,
        product(ones, squares) - there.square() / pairs,
    ]
    correlation = covariance / (variances[0].clamp(min=1e-12) * variances[1].clamp(min=1e-12)).sqrt()
    return torch.where(count > PARTNERS * mask.sum(), correlation, torch.nan)


def unframed(painting: Tensor) -> Tensor:
    """The places of a painting [1, 3, H, W] that cannot be of its frame: bool [1, 1, H, W]."""
    places = torch.zeros_like(painting[:, :1], dtype=torch.bool)
    top, left = (round(FRAME * side) for side in painting.shape[2:])
    places[:, :, top : painting.shape[2] - top, left : painting.shape[3] - left] = True
    return places


def stroke_size(painting: Tensor, *, reach: int = REACH) -> float:
    """Distance in pixels up to which a painting [1, 3, H, W] is like itself (``ALIKE``) in any direction."""
    correlation = autocorrelation(painting, unframed(painting), reach=reach)
    return float(_distances(reach)[(correlation >= ALIKE).cpu()].max())


def repetition(pictures: Tensor, places: Tensor, *, stroke: float, reach: int = REACH) -> Repetition:
    """The highest peak of the autocorrelation at distances of more than ``stroke`` pixels.

    A peak is higher than all eight distances around it: what only falls off slowly is none.

    Args:
        pictures: [N, 3, H, W] in [-1, 1], of one style.
        places: those to look at: ``flat_places`` of the photographs, bool [N, 1, H, W].
        stroke: ``stroke_size`` of the painting, at the size at which it was learned.
        reach: see ``REACH``.

    Raises:
        ValueError: nothing could be compared.
    """
    correlation = autocorrelation(pictures, places, reach=reach)
    beyond = (_distances(reach) > stroke).to(correlation.device) & correlation.isfinite()
    if not beyond.any():
        raise ValueError(f"no distance between {stroke:.1f} and {reach} pixels at which flat places have partners")
    known = correlation.nan_to_num(-torch.inf)
    summits = beyond & (known == F.max_pool2d(known[None], 3, 1, 1)[0]) & (known > 0)
    if not summits.any():
        return Repetition(0.0, (0, 0), stroke)
    number = int(torch.where(summits, known, -torch.inf).argmax())
    down, right = (int(index) - reach for index in divmod(number, 2 * reach + 1))
    return Repetition(float(correlation.flatten()[number]), (down, right), stroke)


def _distances(reach: int) -> Tensor:
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    return torch.hypot(steps[:, None], steps)


def _without_shading(grey: Tensor, mask: Tensor) -> Tensor:
    # A Gaussian mean over the places that count alone.
    radius = round(3 * SHADING)
    kernel = torch.exp(
        -0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64, device=grey.device) / SHADING) ** 2
    )

    def blurred(x: Tensor) -> Tensor:
        for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
            x = F.conv2d(x, kernel.view(shape), padding="same")
        return x

    return grey - blurred(grey * mask) / blurred(mask).clamp(min=1e-9)
