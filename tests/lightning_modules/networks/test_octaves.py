"""Noise with grains of several sizes: of about one strength whatever their number, and wide where it should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.networks.octaves import octaves


def white(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(0))


def doubled(x: np.ndarray) -> np.ndarray:
    """Linear interpolation at the quarters between neighbours, along both sides; the border goes on outside."""
    for _ in range(2):
        padded = np.concatenate([x[:1], x, x[-1:]])
        x = np.stack([0.25 * padded[:-2] + 0.75 * x, 0.75 * x + 0.25 * padded[2:]], 1).reshape(-1, x.shape[1]).T
    return x


def test_it_is_the_sum_of_means_over_squares_made_smooth() -> None:
    noise = white(16, 24)
    pixels = noise[0, 0].double().numpy()
    means = [pixels.reshape(16 // grain, grain, 24 // grain, grain).mean((1, 3)) for grain in (2, 4)]
    # A quadratic B-spline of white noise has the deviation 0.55.
    total = pixels + doubled(2 * means[0]) / 0.55 + doubled(doubled(4 * means[1])) / 0.55
    found = octaves(noise, 3)[0, 0].double().numpy()
    np.testing.assert_allclose(found / found.std(), total / total.std(), atol=1e-5)
    assert octaves(noise, 1) is noise


@pytest.mark.parametrize("count", [2, 3, 5])
def test_its_strength_is_that_of_white_noise(count: int) -> None:
    found = octaves(white(512, 512), count)
    assert found.std().item() == pytest.approx(1, abs=0.06)
    # The widest grains alone survive a mean over their squares: their share of the deviation.
    side = 2 ** (count - 1)
    means = found.view(512 // side, side, 512 // side, side).mean((1, 3))
    assert (
        means.std().item() > 1.5 * white(512, 512).view(512 // side, side, 512 // side, side).mean((1, 3)).std().item()
    )


def test_odd_sides_are_kept() -> None:
    assert octaves(white(37, 51), 5).shape == (1, 1, 37, 51)
    assert octaves(white(1, 3), 4).shape == (1, 1, 1, 3)
