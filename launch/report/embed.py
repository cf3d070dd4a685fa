"""Embeds pictures in the page: unchanged if small enough, else shrunk until they fit."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

#: Longest side in pixels and WebP quality, tried in turn until a picture fits its share of the page.
STEPS = ((1600, 90), (1200, 85), (1000, 80), (800, 75), (600, 70), (400, 60))

#: What a photograph takes at these qualities: larger sizes need not be tried.
BYTES_PER_PIXEL = 0.15


class Picture(NamedTuple):
    """A picture as a data URI, with its width and height in pixels."""

    uri: str
    width: int
    height: int


def embed(file: Path, limit: int) -> Picture | None:
    """A picture in about ``limit`` bytes, base64 included; None when the file cannot be read as an image."""
    try:
        about = file.stat()
    except OSError:
        return None
    return _embed(file, limit, (about.st_mtime_ns, about.st_size))


@functools.lru_cache(maxsize=128)  # a page that is shown live is made again and again
def _embed(file: Path, limit: int, version: tuple[int, int]) -> Picture | None:
    try:
        raw = file.read_bytes()
        with Image.open(io.BytesIO(raw)) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if _size_in_page(raw) <= limit:
        return Picture(_uri("png", raw), *image.size)
    hopeful = [step for step in STEPS if BYTES_PER_PIXEL * step[0] ** 2 < limit]
    for side, quality in hopeful or STEPS[-1:]:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=quality)
        if _size_in_page(stream.getvalue()) <= limit:
            break
    return Picture(_uri("webp", stream.getvalue()), *small.size)


def _size_in_page(raw: bytes) -> int:
    return (len(raw) + 2) // 3 * 4


def _uri(kind: str, raw: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
