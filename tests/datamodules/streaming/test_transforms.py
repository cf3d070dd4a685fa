"""Augmentation against torchvision and PIL."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from datamodules.decoding.jpeg import Box
from datamodules.order import uniforms
from datamodules.streaming.transforms import DRAWS, Augment, Crop, resize

NO_CHANCE = [0.99] * DRAWS  # no flip


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """300 x 400 pixels with detail at all scales."""
    noise = np.random.default_rng(0).normal(0, 1, (300, 400, 3))
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 4, 16)]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def render(augment: Augment, data: bytes, draws: list[float] = NO_CHANCE, channels: int = 3) -> np.ndarray:
    out = np.full((augment.size, augment.size, channels), 123, np.uint8)
    augment.render(data, out, draws)
    return out


def pil_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(64, 64), (300, 400), (224, 96), (500, 333), (1, 1)])
def test_resize_is_pils_antialiased_bilinear(photo: np.ndarray, shape: tuple[int, int], channels: int) -> None:
    source = np.ascontiguousarray(photo[:, :, :channels])
    out = np.empty((*shape, channels), np.uint8)
    resize(source, out)
    theirs = pil_resize(source.squeeze(), shape[1], shape[0]).reshape(out.shape)
    assert np.abs(out.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("size", [64, 300, 320])
def test_center_is_the_largest_square(photo: np.ndarray, size: int) -> None:
    expected = pil_resize(photo[:, 50:350], size, size)
    assert np.abs(render(Augment(size), png(photo)).astype(int) - expected).max() <= 2


def test_none_is_the_whole_image(photo: np.ndarray) -> None:
    expected = pil_resize(photo, 100, 100)
    assert np.abs(render(Augment(100, "none"), png(photo)).astype(int) - expected).max() <= 2


@pytest.mark.slow
def test_random_cuts_pixels_as_they_are(photo: np.ndarray) -> None:
    corners = set()
    for draws in uniforms(0, np.arange(300), DRAWS).tolist():
        out = render(Augment(296, "random"), png(photo), draws)
        top, left, height, width = Augment(296, "random").box(300, 400, draws)
        assert (height, width) == (296, 296)
        assert np.array_equal(out, photo[top : top + 296, left : left + 296])
        corners.add(top)
    assert corners == {0, 1, 2, 3, 4}


def test_random_enlarges_what_is_too_small(photo: np.ndarray) -> None:
    out = render(Augment(320, "random"), png(photo), [0.0] * DRAWS)
    assert np.abs(out.astype(int) - pil_resize(photo[:, :300], 320, 320)).max() <= 2


def decoded_in_part_and_in_full(augment: Augment, image: np.ndarray) -> float:
    """Mean difference between a JPEG, decoded at a part of its size, and a PNG of the same pixels, over 20 draws."""
    data = jpeg(image)
    full = png(np.asarray(Image.open(io.BytesIO(data))))
    rows = uniforms(1, np.arange(20), DRAWS).tolist()
    return float(np.mean([np.abs(render(augment, data, u).astype(float) - render(augment, full, u)) for u in rows]))


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("size", [19, 38, 76, 100, 152])
def test_scaled_decoding_filters_as_well(photo: np.ndarray, crop: Crop, size: int) -> None:
    # The photo's square begins at a multiple of 8, so nothing shifts. Sampling without a filter gives 13 and more.
    assert decoded_in_part_and_in_full(Augment(size, crop), photo[:, :368][:240]) < 2.5


@pytest.mark.parametrize("size", [24, 40, 100, 140])
def test_scaled_decoding_finds_the_box(photo: np.ndarray, size: int) -> None:
    # A box may move by half a pixel of the reduced image, which shows little on smooth colours.
    smooth = cv2.GaussianBlur(photo, (0, 0), 12)
    assert decoded_in_part_and_in_full(Augment(size, "random_resized", scale=(0.3, 1.0)), smooth) < 3


@pytest.mark.slow
def test_random_resized_is_distributed_as_torchvisions() -> None:
    image = torch.empty(3, 300, 400)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    augment = Augment(64, "random_resized")
    ours = np.array([augment.box(300, 400, draws) for draws in uniforms(0, np.arange(4000), DRAWS).tolist()])
    for name, pick in {
        "top": lambda b: b[:, 0] / np.maximum(300 - b[:, 2], 1),
        "left": lambda b: b[:, 1] / np.maximum(400 - b[:, 3], 1),
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "height": lambda b: b[:, 2],
    }.items():
        assert stats.ks_2samp(pick(ours), pick(theirs)).pvalue > 1e-3, name
    assert np.all(ours[:, 0] + ours[:, 2] <= 300)
    assert np.all(ours[:, 1] + ours[:, 3] <= 400)


def test_random_resized_of_a_stripe_is_its_middle() -> None:
    augment = Augment(64, "random_resized", scale=(0.9, 1.0))
    assert augment.box(10, 1000, [0.5] * DRAWS) == Box(0, 495, 10, 10)


@pytest.mark.slow
def test_flip_mirrors_half_of_the_images(photo: np.ndarray) -> None:
    data = png(photo)
    plain = render(Augment(64), data)
    outs = [render(Augment(64, flip=True), data, draws) for draws in uniforms(5, np.arange(200), DRAWS).tolist()]
    mirrored = [np.array_equal(out, plain[:, ::-1]) for out in outs]
    assert all(flipped or np.array_equal(out, plain) for out, flipped in zip(outs, mirrored, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions(channels: int) -> None:
    """On an image of middling values, so that torchvision's clipping between its steps does not matter."""
    image = np.random.default_rng(0).integers(90, 150, (64, 64, 3), dtype=np.uint8)
    if channels == 1:
        image[...] = image[:, :, :1]
    for draws in uniforms(2, np.arange(20), DRAWS).tolist():
        factors = [1 + 0.3 * (2 * u - 1) for u in draws[1:4]]
        theirs = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        theirs = tv.adjust_brightness(theirs, factors[0])
        theirs = tv.adjust_contrast(theirs, factors[1])
        theirs = tv.adjust_saturation(theirs, factors[2]) if channels == 3 else theirs
        expected = theirs.permute(1, 2, 0).numpy()[:, :, :channels] * 255
        data = png(image) if channels == 3 else cv2.imencode(".png", image[:, :, 0])[1].tobytes()
        out = render(Augment(64, color_jitter=0.3), data, draws, channels)
        assert np.abs(out - expected).max() < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "1 pixel"),
        ({"size": 8, "crop": "centre"}, "center, random"),
        ({"size": 8, "color_jitter": 2}, "0 and 1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**options)
