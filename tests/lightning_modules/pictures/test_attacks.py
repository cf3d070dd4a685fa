"""Attacks against Pillow and scipy."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from datamodules.decoding.images import read_image
from lightning_modules.pictures import attacks


@pytest.fixture(params=[1, 3])
def images(request: pytest.FixtureRequest) -> Tensor:
    """Smooth pictures with some noise."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(3, request.param, 4, 4, generator=generator) * 200
    large = torch.nn.functional.interpolate(small, (24, 20), mode="bicubic")
    return (large + 40 * torch.rand(large.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def test_jpeg_is_what_a_saved_file_holds(images: Tensor) -> None:
    found = attacks.jpeg(images, 60)
    for image, attacked in zip(images, found, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels if len(image) == 3 else pixels[:, :, 0]).save(stream, "JPEG", quality=60)
        # Another decoder, that of the data.
        read = read_image(stream.getvalue(), len(image)).astype(int)
        assert np.abs(read - attacked.permute(1, 2, 0).numpy()).max() <= 2
    assert not torch.equal(found, images)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.5])
def test_blur_is_scipys(images: Tensor, sigma: float) -> None:
    wanted = gaussian_filter(images.numpy().astype(float), (0, 0, sigma, sigma), mode="mirror", truncate=4)
    assert np.abs(attacks.blur(images, sigma).numpy() - wanted).max() <= 0.51


def test_resize_is_pillows(images: Tensor) -> None:
    found = attacks.resize(images, 0.5)
    for plane, attacked in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        small = Image.fromarray(plane.numpy()).resize((10, 12), Image.Resampling.BILINEAR)
        wanted = np.array(small.resize((20, 24), Image.Resampling.BILINEAR)).astype(int)
        # Pillow rounds after each of its passes, four in all.
        apart = np.abs(attacked.numpy() - wanted)
        assert apart.max() <= 2
        assert apart.mean() < 0.5


def test_two_of_five_stay_as_they_are_and_draws_are_repeated(images: Tensor) -> None:
    many = images[:1].repeat(200, 1, 1, 1)
    first, again = (attacks.random_attacks(many, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    # Three standard deviations of a share of 200.
    unchanged = (first == many).flatten(1).all(1).float().mean()
    assert abs(float(unchanged) - attacks.UNCHANGED) < 0.11
    assert len(first.flatten(1).unique(dim=0)) == 4
