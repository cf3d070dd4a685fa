"""StyleGAN3's filters against scipy's, and resampling by banded matrices against zeros, filter and every n-th pixel."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import signal, special
from torch.nn import functional as F

from lightning_modules.networks.stylegan3.filters import (
    RadialDownsampling,
    Resampling,
    kaiser_lowpass,
    radial_lowpass,
)

FILTERS = [
    (12, 2.0, 4.0, 32.0),
    (24, 5.3, 3.0, 64.0),
    (13, 2.0, 0.5, 32.0),
    (6, 8.0, 1.0, 32.0),
    (48, 100.0, 90.0, 1024.0),
]


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), FILTERS)
def test_separable_filters_are_scipys(taps: int, cutoff: float, width: float, rate: float) -> None:
    expected = torch.from_numpy(signal.firwin(taps, cutoff, width=width, fs=rate))
    assert (kaiser_lowpass(taps, cutoff, width, rate) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("taps", [12, 13])
def test_radial_filters_are_jincs_in_a_window(taps: int) -> None:
    cutoff, width, rate = 3.0, 4.0, 32.0
    beta = signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2)))
    window = signal.windows.kaiser(taps, beta)
    found = radial_lowpass(taps, cutoff, width, rate)
    assert found.sum().item() == pytest.approx(1, abs=1e-14)
    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(found, found.flip(0))
    # Any two values are in the ratio of the formula.
    middle = (taps - 1) / 2

    def formula(row: int, column: int) -> float:
        radius = math.hypot(row - middle, column - middle) / rate
        jinc = special.j1(2 * math.pi * cutoff * radius) / radius if radius else math.pi * cutoff
        return float(jinc * window[row] * window[column])

    places = [(0, 0), (1, 4), (5, 6), (6, 6), (3, 9)]
    ratios = torch.tensor([found[place].item() / formula(*place) for place in places])
    assert (ratios / ratios[0] - 1).abs().max() < 1e-8


@pytest.mark.parametrize(
    ("taps", "up", "down", "before", "size", "results"),
    [
        (12, 2, 1, 7, 20, 45),
        (24, 4, 1, -9, 20, 60),
        (12, 2, 1, -30, 60, 70),
        (1, 1, 1, -2, 20, 16),
        (12, 1, 2, 0, 75, 32),
        (24, 1, 4, 0, 200, 45),
        (12, 2, 1, 0, 70, 129),
    ],
)
def test_resampling_is_zeros_filter_and_every_nth(
    taps: int, up: int, down: int, before: int, size: int, results: int
) -> None:
    kernel = signal.firwin(taps, 0.4) if taps > 1 else [1.0]
    kernel = torch.tensor(kernel, dtype=torch.float64)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        resampling = Resampling(kernel, up=up, down=down, before=before, size=size, results=results)
    finally:
        torch.set_default_dtype(torch.float32)
    spread = x.new_zeros(2, 3, size * up, size * up)
    spread[:, :, ::up, ::up] = x
    after = (results - 1) * down + taps - (size * up + before)
    padded = F.pad(spread, (before, after, before, after))
    both = kernel[:, None] * kernel[None] * up**2
    expected = F.conv2d(padded, both.flip(0, 1).expand(3, 1, -1, -1), groups=3)[:, :, ::down, ::down]
    assert expected.shape[2:] == (results, results)
    torch.testing.assert_close(resampling(x), expected, rtol=1e-12, atol=1e-12)


def test_radial_downsampling_is_a_convolution() -> None:
    taps = radial_lowpass(12, 3.0, 4.0, 32.0)
    x = torch.randn(2, 3, 40, 40)
    found = RadialDownsampling(taps, down=2)(x)
    one = F.conv2d(x[:1, :1].double(), taps[None, None], stride=2)
    torch.testing.assert_close(found[0, 0].double(), one[0, 0], rtol=1e-5, atol=1e-6)
