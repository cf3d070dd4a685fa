"""The loader's hot path: from a file's bytes to pixels.

Measured on one core (256 px photographs, JPEG quality 90, 21 kB, µs an image): simplejpeg 209, OpenCV 253, PIL 336;
simplejpeg at 1/2 179, at 1/4 168, at 5/8 262 (only halvings have SIMD code, so no other scale is ever asked for; the
rest is entropy decoding, which no scale saves). A 1024 px one: 2540 in full, 2040 at 1/2, 1840 at 1/4. Leaving out the
rows below random resized crops saves a tenth at 224 px, and an eighth at 64; leaving out the pixels above and beside
them as well (libjpeg-turbo can, no kept package offers it) would save another sixth at 224, and nothing at 64.
PNG, 28 px grey: OpenCV 13, PIL 31; 256 px colour: 1360 and 1540. simplejpeg and OpenCV release the GIL while they work.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
import simplejpeg

from datamodules.images import read_image

_MAX_PIXELS = 100_000_000
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks before the pixels that ask for more than copying them: transparency, profile, orientation, animation.
_PNG_CHUNKS_WITH_CARE = (b"tRNS", b"iCCP", b"eXIf", b"acTL")
_JPEG_END = b"\xff\xd9"
_PROGRESSIVE = 0xC2
_JPEG_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}  # baseline, extended, progressive: what every decoder reads
_JPEG_NO_FRAMES = {0xC4, 0xC8, 0xCC}  # the other segments that share the frames' range of markers
_EXIF_ORIENTATION = 0x0112
_HEAD = 256  # the frame header mostly begins at byte 158, after JFIF's segment and two quantization tables
# Chroma of half the height is interpolated between rows: what lies so many of them below a row has no influence on it.
_CONTEXT_ROWS = 4
# Chroma has half of luma's width and height: in a reduced image, it has as many pixels, and nothing is interpolated.
_HALVED_BOTH_WAYS = 0x22
_SRGB = (b"sRGB", b"s\0R\0G\0B")


class JpegFrame(NamedTuple):
    """A JPEG's frame header: where its height stands in the file, what it says, and whether one pass decodes it.

    ``sampling``: of the first component, its horizontal and its vertical factor in four bits each.
    """

    at: int
    height: int
    width: int
    sampling: int
    baseline: bool


def decode_image(
    data: bytes,
    channels: int,
    *,
    frame: JpegFrame | None = None,
    reduce: int = 1,
    bottom: int | None = None,
    memory: np.ndarray | None = None,
) -> np.ndarray:
    """Decodes an image as ``datamodules.images.read_image`` would, faster where it is an ordinary JPEG or PNG.

    Args:
        data: the file's bytes.
        channels: 1 (grey) or 3 (RGB).
        frame: what ``jpeg_frame`` returned, if it was asked already.
        reduce: 1, 2, 4 or 8: an ordinary JPEG (one that has a ``jpeg_frame``) comes at 1/reduce of its size, rounded
            up, which saves the inverse DCT's work; it averages, so nothing aliases. Others come in full.
        bottom: rows of the file's image from this one on are not needed; None: all are. An ordinary JPEG may come
            without them, or with some.
        memory: uint8, contiguous. An ordinary JPEG is put there if it fits: from one image to the next, it is still in
            the processor's cache.

    Returns:
        uint8 [height, width, channels] in [0, 255], contiguous.

    Raises:
        BadImage: no image, or a broken one.
    """
    frame = frame or jpeg_frame(data)
    if frame is not None:
        image = _decode_jpeg(data, frame, channels, reduce, bottom, memory)
        if image is not None:
            return image
    elif _is_plain_png(data, channels):
        flag = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        if image is not None:
            return image if channels == 3 else image[:, :, None]
    return read_image(data, channels)


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG that needs no care: grey or YCbCr/RGB, upright, in sRGB or no named colours.

    None for everything else: other formats, CMYK, rotated by EXIF, foreign colour profiles, more than 100 million
    pixels, broken headers. ``read_image`` knows what to do with those.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    # JPEGs of one data set mostly begin alike, and are then recognized in a tenth of the time.
    return _frame_in_head(data[:_HEAD]) or _find_frame(data)


@lru_cache(64)
def _frame_in_head(head: bytes) -> JpegFrame | None:
    """The frame header if a JPEG's first bytes hold it, and all that goes before it."""
    return _find_frame(head)


def _find_frame(data: bytes) -> JpegFrame | None:
    at = 2
    while at + 11 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker in _JPEG_FRAMES:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            plain = data[at + 4] == 8 and data[at + 9] in (1, 3) and 0 < height * width <= _MAX_PIXELS
            return JpegFrame(at + 5, height, width, data[at + 11], marker != _PROGRESSIVE) if plain else None
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAMES:
            return None
        if marker in (0xE1, 0xE2) and _needs_care(data[at + 4 : at + 2 + length]):
            return None
        at += 2 + length
    return None


def _decode_jpeg(
    data: bytes, frame: JpegFrame, channels: int, reduce: int, bottom: int | None, memory: np.ndarray | None
) -> np.ndarray | None:
    """An ordinary JPEG's pixels; None where it is damaged, or of a rare kind after all."""
    at, whole, width, sampling, baseline = frame
    rows = _CONTEXT_ROWS if reduce == 1 or sampling != _HALVED_BOTH_WAYS else 1  # one, for boxes are rounded
    height = whole if bottom is None else min(whole, bottom + rows * reduce)
    cut = height < whole and baseline and data.endswith(_JPEG_END)
    if cut:
        # With a smaller height in its header, the decoder stops there. Then it finds data that it did not expect, which
        # strict decoding would take for damage.
        data = b"".join((data[:at], height.to_bytes(2), memoryview(data)[at + 2 :]))
    else:
        height = whole
    h, w = -(-height // reduce), -(-width // reduce)
    if memory is not None and h * w * channels > memory.size:
        memory = None
    try:
        return simplejpeg.decode_jpeg(
            data, "RGB" if channels == 3 else "GRAY", False, False, h, w, buffer=memory, strict=not cut
        )
    except ValueError:
        return None


def _needs_care(segment: bytes) -> bool:
    """Whether a JPEG's application segment turns its pixels or gives them other colours than sRGB."""
    if segment.startswith(b"Exif\0\0"):
        return _orientation(segment[6:]) != 1
    return segment.startswith(b"ICC_PROFILE\0") and not any(name in segment for name in _SRGB)


def _orientation(exif: bytes) -> int:
    """EXIF orientation: 1 (upright) where none is given, 0 where the block is broken."""
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"
    first = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[first : first + 2], order)
    entries = exif[first + 2 : first + 2 + 12 * count]
    if not 0 < count == len(entries) / 12:
        return 0
    for at in range(0, len(entries), 12):
        if int.from_bytes(entries[at : at + 2], order) == _EXIF_ORIENTATION:
            return int.from_bytes(entries[at + 8 : at + 10], order)
    return 1


def _is_plain_png(data: bytes, channels: int) -> bool:
    """Whether a PNG is whole, 8-bit grey or RGB as asked for, and nothing but pixels."""
    if data[:8] != _PNG_SIGNATURE or data[-8:-4] != b"IEND":
        return False
    depth, colour = data[24], data[25]  # colour 0: grey, 2: RGB
    if depth != 8 or not (colour == 0 or (colour == 2 and channels == 3)):
        return False
    if int.from_bytes(data[16:20]) * int.from_bytes(data[20:24]) > _MAX_PIXELS:
        return False
    head = data[: data.find(b"IDAT")]
    return not any(chunk in head for chunk in _PNG_CHUNKS_WITH_CARE)
