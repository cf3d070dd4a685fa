"""The structure of a JPEG, and a check for files that need no special treatment."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

#: Of an image that is decoded here.
MAX_PIXELS = 100_000_000
#: Bytes behind the frame header within which its Huffman tables lie; mostly they take 432.
HUFFMAN_TABLES = 2048
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
#: The second bytes of markers: Huffman tables, scan.
DHT, SOS = 0xC4, 0xDA
#: What the segment begins with that ``datamodules.decoding.restart`` puts before the scan.
RESTARTS = b"gesso restarts\0"
_PROGRESSIVE = 0xC2
_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}  # baseline, extended, progressive: what every decoder reads
_NO_FRAMES = {DHT, 0xC8, 0xCC}  # the other segments that share the frames' range of markers
_EXIF_ORIENTATION = 0x0112
_HEAD = 256  # the frame header mostly begins at byte 158, after JFIF's segment and two quantization tables
_SRGB = (b"sRGB", b"s\0R\0G\0B")


class Box(NamedTuple):
    """A rectangle of an image, in whole pixels."""

    top: int
    left: int
    height: int
    width: int


class JpegFrame(NamedTuple):
    """A JPEG's frame header: where its height stands in the file, what it says, and whether one pass decodes it.

    ``mcu_height``, ``mcu_width``: pixels of a minimum coded unit, the blocks of all components that are coded together,
    where chroma has one block each.
    """

    at: int
    height: int
    width: int
    components: int
    mcu_height: int
    mcu_width: int
    baseline: bool


class Piece(NamedTuple):
    """A JPEG of a part of another: its bytes, the rectangle it shows, and whether a strict decoder takes it."""

    data: bytes | np.ndarray
    box: Box
    strict: bool


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG that needs no treatment: grey or YCbCr/RGB, upright, in sRGB or no named colours.

    None for everything else: other formats, CMYK, rotated by EXIF, foreign colour profiles, more than 100 million
    pixels, broken headers. ``datamodules.decoding.images.read_image`` knows what to do with those.
    """
    if not data.startswith(SOI):
        return None
    # JPEGs of one data set mostly begin alike, and are then recognized in a tenth of the time.
    return _frame_in_head(data[:_HEAD]) or _find_frame(data)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments up to its scan: the marker's second byte, and where the content begins and ends."""
    at = 2
    while at + 3 < len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + (data[at + 2] << 8 | data[at + 3])
        yield marker, at + 4, end
        if marker == SOS:
            return
        at = end


@lru_cache(64)
def _frame_in_head(head: bytes) -> JpegFrame | None:
    """The frame header if a JPEG's first bytes hold it, and all that goes before it."""
    return _find_frame(head)


def _find_frame(data: bytes) -> JpegFrame | None:
    for marker, at, end in segments(data):
        if marker in _FRAMES:
            return _read_frame(data[at : at + 8], at + 1, marker != _PROGRESSIVE)
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            return None
        if marker in (0xE1, 0xE2) and _needs_care(data[at:end]):
            return None
    return None


def _read_frame(content: bytes, at: int, baseline: bool) -> JpegFrame | None:
    if len(content) < 8:
        return None
    height, width = content[1] << 8 | content[2], content[3] << 8 | content[4]
    bits, components, factors = content[0], content[5], content[7]
    if bits != 8 or components not in (1, 3) or not 0 < height * width <= MAX_PIXELS:
        return None
    # Luma's sampling factors. A component that is alone is coded block by block, whatever they say.
    across, down = (factors >> 4, factors & 15) if components == 3 else (1, 1)
    if not (1 <= across <= 4 and 1 <= down <= 4):
        return None
    return JpegFrame(at, height, width, components, 8 * down, 8 * across, baseline)


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
