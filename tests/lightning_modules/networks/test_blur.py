"""Gaussian blur: a point becomes the formula, and small blurs do nothing."""

from __future__ import annotations

import torch

from lightning_modules.networks.blur import gaussian_blur


def test_a_point_becomes_the_kernel() -> None:
    point = torch.zeros(1, 2, 25, 25)
    point[0, 1, 12, 12] = 1
    blurred = gaussian_blur(point, 2.0)
    places = torch.arange(-12, 13).float()
    kernel = 2 ** -((places / 2) ** 2)
    kernel[places.abs() > 6] = 0
    kernel /= kernel.sum()
    torch.testing.assert_close(blurred[0, 1], kernel[:, None] * kernel)
    assert not blurred[0, 0].any()


def test_under_a_third_of_a_pixel_nothing_is_blurred() -> None:
    images = torch.randn(1, 1, 4, 4)
    assert gaussian_blur(images, 0.3) is images
