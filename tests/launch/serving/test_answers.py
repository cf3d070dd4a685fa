"""Pictures of strangers are judged before they are decoded; answers keep every pixel."""

from __future__ import annotations

import re
import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from launch.inference.pictures import is_ours
from launch.serving.answers import Format, Origin, answered, decoded
from tests.launch.serving.models import picture_bytes, pixels

LIMITS = {"channels": 3, "max_pixels": 1_000_000, "max_side": 2048}


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [1001, 12_000, 60_000])
def test_bombs_are_refused_before_anything_is_decoded(side: int) -> None:
    decoded(picture_bytes(), "content", **LIMITS)  # type: ignore[arg-type] # plugins are loaded
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"content is not a picture that can be read \(too large"):
        decoded(bomb(side), "content", **LIMITS)  # type: ignore[arg-type]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_what_is_no_picture_is_one_line() -> None:
    whole = picture_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe"):
        with pytest.raises(ValueError, match=r"^style is not a picture that can be read \([^\n]*\)$"):
            decoded(data, "style", **LIMITS)  # type: ignore[arg-type]


def test_pictures_are_as_the_command_line_reads_them_and_no_longer_than_the_limit() -> None:
    data = picture_bytes(40, 60)
    np.testing.assert_array_equal(decoded(data, "content", **LIMITS), pixels(data))  # type: ignore[arg-type]
    assert decoded(data, "content", channels=1, max_pixels=10_000, max_side=30).shape == (20, 30, 1)


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_answers_say_who_made_them(format: Format, tmp_path: object) -> None:
    picture = pixels(picture_bytes())
    data = answered(picture, format, Origin("model", "a model"))
    with Image.open(BytesIO(data)) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[format]
        assert image.getexif()[0x0131] == "gesso"
    if format == "png":
        np.testing.assert_array_equal(pixels(data), picture)
    assert data == answered(picture, format, Origin("model", "a model"))
    assert is_ours(BytesIO(data))  # type: ignore[arg-type]
    assert pixels(answered(picture[:, :, :1], "png", Origin("m", "w"))).shape == picture.shape[:2]
    assert re.search(rb"gesso", data)
