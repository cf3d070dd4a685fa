"""Animated pictures through a function: every frame, its time, and how often all is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.inference.animations import convert_file

SHADES = (0, 90, 180, 255)
TIMES = [40, 80, 120, 500]


def animation(file: Path, **options: object) -> Path:
    frames = [Image.new("RGB", (8, 6), (shade, shade, 255 - shade)) for shade in SHADES]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=TIMES, **options)  # type: ignore[arg-type]
    return file


def frames_of(file: Path) -> tuple[list[np.ndarray], list[float], object]:
    pictures, times = [], []
    with Image.open(file) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            pictures.append(np.asarray(image.convert("RGB")))
            times.append(float(image.info.get("duration", 0)))
        return pictures, times, image.info.get("loop")


@pytest.mark.parametrize("source", ["a.gif", "a.webp", "a.png"])
@pytest.mark.parametrize("out", ["b.gif", "b.webp", "b.png"])
def test_frames_and_times_stay(tmp_path: Path, source: str, out: str) -> None:
    file = animation(tmp_path / source, loop=0, **({"lossless": True} if source == "a.webp" else {}))
    convert_file(file, tmp_path / out, lambda picture: -picture)
    pictures, times, loop = frames_of(tmp_path / out)
    assert times == TIMES
    assert loop == 0
    for picture, shade in zip(pictures, SHADES, strict=True):
        wanted = np.array([255 - shade, 255 - shade, shade])
        assert np.abs(picture.reshape(-1, 3).mean(0) - wanted).max() < 4


@pytest.mark.parametrize(
    ("source", "options", "out", "loop"),
    [
        ("a.gif", {}, "b.gif", None),
        ("a.gif", {}, "b.webp", 1),
        ("a.gif", {"loop": 2}, "b.png", 3),
        ("a.png", {"loop": 3}, "b.gif", 2),
        ("a.webp", {"loop": 1}, "b.gif", None),
    ],
)
def test_it_is_shown_as_often(tmp_path: Path, source: str, options: dict[str, int], out: str, loop: object) -> None:
    convert_file(animation(tmp_path / source, **options), tmp_path / out, lambda picture: picture)
    assert frames_of(tmp_path / out)[2] == loop


def test_a_still_format_cannot_hold_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b\.jpg: 4 frames, which only \.png, \.webp and \.gif can hold"):
        convert_file(animation(tmp_path / "a.gif"), tmp_path / "b.jpg", lambda picture: picture)
    assert not (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize(
    ("name", "format"),
    [("b.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("b.webp", "WEBP"), ("b.tif", "TIFF"), ("b.bmp", "BMP"), ("b", "PNG")],
)
def test_the_ending_says_the_format(tmp_path: Path, name: str, format: str) -> None:
    shades = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (48, 1, 3))
    Image.fromarray(shades).save(tmp_path / "a.png")
    convert_file(tmp_path / "a.png", tmp_path / name, lambda picture: picture)
    with Image.open(tmp_path / name) as made:
        assert made.format == format
        assert np.abs(np.asarray(made.convert("RGB")).astype(int) - shades).max() <= 4
