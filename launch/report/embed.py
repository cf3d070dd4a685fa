"""Pictures inside the page: as they are while small, else shrunk until they fit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

T = TypeVar("T")

#: Longest side in pixels and WebP quality, tried in turn until a picture fits its share of the page.
STEPS = ((1600, 90), (1200, 85), (1000, 80), (800, 75), (600, 70), (400, 60))


class Picture(NamedTuple):
    """A picture as a data URI, with its width and height in pixels."""

    uri: str
    width: int
    height: int


def embed(file: Path, limit: int) -> Picture | None:
    """A picture in about ``limit`` bytes, base64 included; None when the file cannot be read as an image."""
    try:
        raw = file.read_bytes()
        with Image.open(io.BytesIO(raw)) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if _size_in_page(raw) <= limit:
        return Picture(_uri("png", raw), *image.size)
    for side, quality in STEPS:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=quality)
        if _size_in_page(stream.getvalue()) <= limit:
            break
    return Picture(_uri("webp", stream.getvalue()), *small.size)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` (2 or more) of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]


def _size_in_page(raw: bytes) -> int:
    return (len(raw) + 2) // 3 * 4


def _uri(kind: str, raw: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
