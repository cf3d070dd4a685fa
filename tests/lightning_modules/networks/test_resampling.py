"""Blurs and interpolation against the filters that the paper and CUT's code write out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.networks.resampling import blur_down, smooth_up
from tests.formulas import waves


@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 9), (2, 5)])
def test_halving_is_the_binomial_filter(height: int, width: int) -> None:
    x = waves(2, 3, height, width)
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=3)
    torch.testing.assert_close(blur_down(x), expected)


@pytest.mark.parametrize(("height", "width"), [(4, 5), (1, 3)])
def test_doubling_is_the_binomial_filter(height: int, width: int) -> None:
    x = waves(2, 3, height, width)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = (row[:, None] * row).expand(3, 1, 4, 4)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, kernel, stride=2, groups=3)[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(smooth_up(x, (2 * height, 2 * width)), expected)
    torch.testing.assert_close(smooth_up(x, (2 * height - 1, 2 * width)), expected[:, :, :-1])
