"""Invisible watermarks: how many bits and whole messages are right after what is commonly done to pictures.

Figures of quality, not of time: ``python -m tests.benchmarks.watermark``, with the photographs that scikit-image and
scikit-learn bring, prints a table and keeps it in ``tests/benchmarks/results/watermark.json``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from rich.console import Console
from rich.table import Table

from launch.provenance.watermark import BITS, MESSAGE_BYTES, DwtDctSvd, _bits

RESULTS = Path(__file__).parent / "results" / "watermark.json"
#: Sides in pixels of the pictures that are marked.
SIDES = (256, 64)
#: Unmarked pictures that are searched for a message, each in this many crops.
CROPS = 10


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def noisy(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 5, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).round().astype(np.uint8))


def cropped(picture: Image.Image, kept: float) -> Image.Image:
    """The middle, ``kept`` of each side."""
    edge = round(picture.width * (1 - kept) / 2)
    return picture.crop((edge, edge, picture.width - edge, picture.height - edge))


ATTACKS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda picture: picture,
    "JPEG 80": lambda picture: jpeg(picture, 80),
    "JPEG 50": lambda picture: jpeg(picture, 50),
    "half size": lambda picture: picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC),
    "blur, sigma 1": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "noise, sigma 5": noisy,
    "brightness x 1.2": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "contrast x 0.8": lambda picture: ImageEnhance.Contrast(picture).enhance(0.8),
    "crop to 90 %": lambda picture: cropped(picture, 0.9),
}


def photographs() -> list[np.ndarray]:
    """Two squares, at opposite corners, of each of ten photographs, uint8 [S, S, 3]."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    taken = (data.astronaut, data.coffee, data.chelsea, data.rocket, data.camera, data.hubble_deep_field, data.retina)
    images = [image() for image in taken] + [data.stereo_motorcycle()[0], *load_sample_images().images]
    return [square for image in images for square in _corners(image)]


def _corners(image: np.ndarray) -> list[np.ndarray]:
    rgb = np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image
    edge = max(max(SIDES), 3 * min(rgb.shape[:2]) // 4)
    return [rgb[:edge, :edge], rgb[-edge:, -edge:]]


def measure(pictures: list[np.ndarray], side: int) -> dict[str, object]:
    """Shares of right bits and right messages under each attack, PSNR, and messages in what was not marked."""
    mark = DwtDctSvd()
    rng = np.random.default_rng(0)
    bits: dict[str, list[float]] = {name: [] for name in ATTACKS}
    whole: dict[str, list[bool]] = {name: [] for name in ATTACKS}
    psnr = []
    for picture in pictures:
        message = rng.bytes(MESSAGE_BYTES)
        marked = mark.embed(picture, message)
        psnr.append(float(cv2.PSNR(picture, marked)))
        for name, attack in ATTACKS.items():
            seen = np.asarray(attack(Image.fromarray(marked)))
            bits[name].append(float(((mark.soft_bits(seen, side) > 0) == _bits(message)).mean()))
            whole[name].append(mark.extract(seen) == message)
    unmarked = [
        np.ascontiguousarray(picture[corner : side - corner, corner:])
        for picture in pictures
        for corner in range(CROPS)
    ]
    return {
        "pictures": len(pictures),
        "psnr": {"mean": float(np.mean(psnr)), "least": min(psnr)},
        "bits_right": {name: float(np.mean(found)) for name, found in bits.items()},
        "messages_right": {name: float(np.mean(found)) for name, found in whole.items()},
        "false_positives": [sum(mark.extract(image) is not None for image in unmarked), len(unmarked)],
    }


def main() -> None:
    """Measures, prints the table and writes the figures."""
    squares = photographs()
    found = {
        side: measure([cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA) for square in squares], side)
        for side in SIDES
    }
    table = Table(title=f"dwtDctSvd, {BITS} bits of which {8 * MESSAGE_BYTES} are the message, {len(squares)} pictures")
    table.add_column("attack")
    for side in SIDES:
        table.add_column(f"bits, {side} px", justify="right")
        table.add_column("messages", justify="right")
    for name in ATTACKS:
        cells = [(found[side]["bits_right"][name], found[side]["messages_right"][name]) for side in SIDES]  # type: ignore[index]
        table.add_row(name, *(f"{cell:.1%}" for pair in cells for cell in pair))
    Console().print(table)
    for side in SIDES:
        print(side, "px: PSNR", found[side]["psnr"], "false positives", found[side]["false_positives"])
    RESULTS.write_text(json.dumps({"method": DwtDctSvd.name, "sides": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
