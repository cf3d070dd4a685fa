"""Repeated tiles: the autocorrelation is scikit-image's, a stamp is found at its period, strokes anywhere are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.registration._masked_phase_cross_correlation import cross_correlate_masked
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.metrics.repetition import (
    REACH,
    SHADING,
    Repetition,
    autocorrelation,
    brightness,
    flat_places,
    repetition,
    stroke_size,
)
from tests.pictures import photographs


def grey(pixels: Tensor) -> Tensor:
    """[H, W] to [1, 3, H, W]."""
    return pixels.expand(1, 3, *pixels.shape[-2:]).float()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def strokes(side: int = 128) -> Tensor:
    """Blurred noise: blots of one size that stand anywhere."""
    return grey(0.5 * F.avg_pool2d(noise(1, 1, side + 4, side + 4), 5, 1) * 5)


def all_of(picture: Tensor) -> Tensor:
    return torch.ones_like(picture[:, :1], dtype=torch.bool)


def test_it_is_the_masked_correlation_of_scikit_image() -> None:
    from scipy.ndimage import gaussian_filter

    picture = 0.3 * photographs(64)[:1]
    places = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    places[:, :, 5:50, 12:60] = True
    places[:, :, 20:30, 20:30] = False
    mask = places[0, 0].numpy()
    pixels = brightness(picture)[0, 0].numpy()
    blurred = [gaussian_filter(x, SHADING, mode="constant", truncate=3.0) for x in (pixels * mask, mask * 1.0)]
    flattened = pixels - blurred[0] / np.maximum(blurred[1], 1e-9)
    wanted = cross_correlate_masked(flattened, flattened, mask, mask, mode="full", overlap_ratio=0.0)
    middle, reach = 63, 12
    wanted = wanted[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    np.testing.assert_allclose(autocorrelation(picture, places, reach=reach).numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("period", [8, 11])
def test_a_stamp_is_found_at_its_period(period: int) -> None:
    stamp = noise(period, period)
    picture = grey(0.2 * stamp.repeat(128 // period + 1, 128 // period + 1)[:128, :128])
    # What is shading makes no difference.
    picture = picture + torch.linspace(-0.5, 0.5, 128)
    found = repetition(picture, all_of(picture), stroke=4.0)
    assert found.peak > 0.95
    assert all(step % period == 0 for step in found.shift)


def test_half_of_it_being_noise_halves_the_peak() -> None:
    stamp = noise(8, 8)
    picture = grey(0.2 * (stamp.repeat(16, 16) / stamp.std() + torch.randn(128, 128)))
    assert repetition(picture, all_of(picture), stroke=4.0).peak == pytest.approx(0.5, abs=0.07)


def test_strokes_that_stand_anywhere_have_no_peak_beyond_their_size() -> None:
    picture = strokes()
    size = stroke_size(picture)
    framed = picture.clone()
    framed[..., :4] = framed[..., -4:] = framed[..., :4, :] = framed[..., -4:, :] = -1
    assert stroke_size(framed) == pytest.approx(size, abs=1)
    # Means over 5 x 5 have the correlation 1 - d / 5 at the distance d.
    assert 2 <= size <= 5
    assert isinstance(repetition(picture, all_of(picture), stroke=size), Repetition)
    assert repetition(picture, all_of(picture), stroke=size).peak < 0.3


def test_what_falls_off_slowly_is_no_peak() -> None:
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    blot = grey(torch.exp(-((rows - 64) ** 2 + (columns - 64) ** 2) / 50))
    assert autocorrelation(blot, all_of(blot))[REACH, REACH + 4] > 0.5
    assert repetition(blot, all_of(blot), stroke=2.0).peak < 0.1


def test_only_flat_places_count_and_pictures_are_taken_together() -> None:
    tiled = grey(0.2 * noise(8, 8).repeat(16, 16))
    half = torch.cat([tiled[:, :, :, :64], strokes()[:, :, :, 64:]], 3)
    left, right = (torch.zeros(1, 1, 128, 128, dtype=torch.bool) for _ in range(2))
    left[..., :60], right[..., 70:] = True, True
    assert repetition(half, left, stroke=6.0).peak > 0.9
    assert repetition(half, right, stroke=6.0).peak < 0.3
    both = repetition(torch.cat([half, half]), torch.cat([left, left]), stroke=6.0)
    assert both.peak == pytest.approx(repetition(half, left, stroke=6.0).peak, abs=1e-9)


def test_flat_places() -> None:
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 32:] = 0.5 * noise(1, 1, 64, 32)
    flat = flat_places(picture)
    assert flat[..., :24].all()
    assert not flat[..., 40:].any()


def test_nothing_to_compare_is_said() -> None:
    picture = strokes(64)
    with pytest.raises(ValueError, match="no distance between 4.0 and 32 pixels"):
        repetition(picture, torch.zeros(1, 1, 64, 64, dtype=torch.bool), stroke=4.0)
    assert autocorrelation(picture, all_of(picture))[REACH, REACH] == pytest.approx(1)
