"""Frames of animations, and masks with transparency."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from datamodules.decoding.frames import read_frames, read_mask
from datamodules.decoding.images import BadImage


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


#: Selected on the left.
HALF = np.repeat(np.array([[255, 0]], np.uint8), 4, 1).repeat(6, 0)


def rgba(grey: np.ndarray, opacity: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([grey, grey, grey, opacity]))


def everywhere(value: int) -> np.ndarray:
    return np.full_like(HALF, value)


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(HALF),
        Image.fromarray(HALF).convert("1"),
        Image.fromarray(HALF).convert("P"),
        rgba(HALF, everywhere(255)),
        rgba(everywhere(255), HALF),
        rgba(everywhere(0), HALF),
        rgba(HALF, HALF),
    ],
    ids=["grey", "one bit", "palette", "opaque", "white where it is opaque", "black where it is opaque", "both"],
)
def test_the_left_half_is_selected(mask: Image.Image) -> None:
    assert np.array_equal(read_mask(saved(mask)), HALF)


def test_black_selects_nothing_and_neither_does_what_is_transparent() -> None:
    assert not read_mask(saved(Image.fromarray(everywhere(0)).convert("P"))).any()
    assert not read_mask(saved(Image.fromarray(everywhere(0)).convert("P"), transparency=0)).any()
    assert not read_mask(saved(rgba(HALF, everywhere(0)))).any()
    assert not read_mask(saved(rgba(everywhere(0), everywhere(255)))).any()


def test_half_transparent_is_half_selected() -> None:
    assert np.array_equal(read_mask(saved(rgba(HALF, everywhere(128)))), np.where(HALF > 0, 128, 0))


def test_a_mask_is_turned_like_its_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = rgba(everywhere(255), HALF).transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(read_mask(saved(turned, exif=exif)), HALF)


def test_a_still_picture_is_one_frame() -> None:
    frames = read_frames(saved(Image.fromarray(HALF)), 3)
    assert [picture.shape for picture in frames.pictures] == [(6, 8, 3)]


def test_pages_are_no_frames() -> None:
    pages = [Image.fromarray(everywhere(shade)) for shade in (9, 200)]
    frames = read_frames(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), 1)
    assert [int(picture.mean()) for picture in frames.pictures] == [9]


def test_a_broken_animation_is_a_bad_image() -> None:
    shades = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (32, 32), np.uint8)) for n in range(4)]
    whole = saved(shades[0], "GIF", save_all=True, append_images=shades[1:], duration=50)
    with pytest.raises(BadImage):
        read_frames(whole[: len(whole) // 2], 1)


def test_the_picture_before_an_animated_png_is_none_of_its_frames() -> None:
    shades = [Image.fromarray(everywhere(shade)) for shade in (9, 100, 200)]
    png = saved(shades[0], save_all=True, append_images=shades[1:], duration=50, default_image=True)
    assert [int(picture.mean()) for picture in read_frames(png, 1).pictures] == [100, 200]
