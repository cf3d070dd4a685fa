"""Sprites: white shapes on black whose factors are known, drawn by gesso itself (after dSprites, Matthey et al. 2017).

Every combination of shape, scale, rotation, x and y is one picture. No shape looks the same after a part of a turn, so
that a rotation is a fact of its picture. What lies in the cache is a list of the combinations; the pictures are drawn
when shards are built, by arithmetic that rounds alike on every machine.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np

#: Names of the shapes, which are the classes.
SHAPES = ("heart", "wedge", "corner")
#: Factors by name, and how many values each has, counted from 0; the last changes fastest.
FACTORS = {"shape": len(SHAPES), "scale": 6, "rotation": 16, "x": 16, "y": 16}
#: Height and width in pixels.
SIDE = 64
#: Files of the asset: a byte for each factor of each picture, and as text.
CODES, CAPTIONS = "codes.bin", "captions.txt"

#: Each pixel is the mean of so many places along each side.
_SAMPLES = 4
#: Half the size of the largest and of the smallest sprite, and how far centres lie from the border, in pixels.
_LARGE, _SMALL, _BORDER = 14.0, 7.0, 16.0
#: No shape reaches farther from its centre, in half sizes.
_REACH = 1.15


def write_factors(folder: Path) -> None:
    """Writes the asset's files: the factors of all pictures, as bytes and as captions."""
    codes = list(product(*(range(count) for count in FACTORS.values())))
    (folder / CODES).write_bytes(bytes(value for code in codes for value in code))
    (folder / CAPTIONS).write_text("".join(f"{caption(code)}\n" for code in codes), encoding="ascii")


def caption(code: tuple[int, ...]) -> str:
    """The factors of a picture as text.

    >>> caption((2, 0, 15, 3, 7))
    'shape=2 scale=0 rotation=15 x=3 y=7'
    """
    return " ".join(f"{name}={value}" for name, value in zip(FACTORS, code, strict=True))


def draw(code: tuple[int, ...]) -> np.ndarray:
    """Draws a sprite.

    Args:
        code: values of the ``FACTORS``, in their order.

    Returns:
        uint8 [64, 64]: 0 outside of the shape, 255 inside, and between them at its edge.
    """
    shape, scale, rotation, x, y = code
    half = _SMALL + (_LARGE - _SMALL) * scale / (FACTORS["scale"] - 1)
    centre_x, centre_y = (
        _BORDER + (SIDE - 2 * _BORDER) * place / (FACTORS[name] - 1) for name, place in (("x", x), ("y", y))
    )
    rows, columns = (_span(centre, half) for centre in (centre_y, centre_x))
    angle = 2 * math.pi * rotation / FACTORS["rotation"]
    # To few digits: the last one of a sine is not the same on every machine.
    cosine, sine = (round(value * 65536) / 65536 for value in (math.cos(angle), math.sin(angle)))
    right = (_places(columns) - centre_x)[None, :] / half
    up = (centre_y - _places(rows))[:, None] / half
    inside = _inside(SHAPES[shape], right * cosine + up * sine, up * cosine - right * sine)
    counts = inside.reshape(len(rows), _SAMPLES, len(columns), _SAMPLES).sum((1, 3))
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[rows.start : rows.stop, columns.start : columns.stop] = counts * 255 // _SAMPLES**2
    return picture


def _span(centre: float, half: float) -> range:
    """The pixels that a shape may touch along one side."""
    return range(max(0, math.floor(centre - _REACH * half)), min(SIDE, math.ceil(centre + _REACH * half)))


def _places(pixels: range) -> np.ndarray:
    return (np.arange(pixels.start * _SAMPLES, pixels.stop * _SAMPLES) + 0.5) / _SAMPLES


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether places lie inside of a shape: u to the right and v up, in half sizes."""
    if shape == "heart":
        a, b = 1.2 * u, 1.2 * v + 0.15
        a, above = a * a, b * b
        ring = a + above - 1
        return np.asarray(ring * ring * ring <= a * above * b)
    if shape == "wedge":
        return np.asarray((v >= -0.75) & (abs(u) <= 0.35 * (1 - v)))
    return np.asarray((abs(u) <= 0.75) & (abs(v) <= 0.75) & ((u <= -0.2) | (v <= -0.2)))
