"""The loader's hot path: from a file's bytes to pixels.

Measured on one core (256 px photographs, JPEG quality 90, 21 kB, µs an image): simplejpeg 209, OpenCV 253, PIL 336;
simplejpeg at 1/2 179, at 1/4 168, at 5/8 262 (only halvings have SIMD code, so no other scale is ever asked for; the
rest is entropy decoding, which no scale saves). A 1024 px one: 2540 in full, 2040 at 1/2, 1840 at 1/4. Leaving out the
rows below random resized crops saves a tenth at 224 px, and an eighth at 64; restart markers save more
(``decoding.restart``). PNG, 28 px grey: OpenCV 13, PIL 31; 256 px colour: 1360 and 1540. simplejpeg and OpenCV
release the GIL while they work.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from datamodules.decoding.cutting import cut
from datamodules.decoding.images import read_image
from datamodules.decoding.jpeg import MAX_PIXELS, Box, JpegFrame, jpeg_frame

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks before the pixels that ask for more than copying them: transparency, profile, orientation, animation.
_PNG_CHUNKS_WITH_CARE = (b"tRNS", b"iCCP", b"eXIf", b"acTL")
# Chroma of half the size is interpolated between rows and columns: what lies so many of them away from a pixel has no
# influence on it.
_CONTEXT = 4
# Chroma has half of luma's width and height: in a reduced image, it has as many pixels, and nothing is interpolated.
_HALVED_BOTH_WAYS = (16, 16)


class Part(NamedTuple):
    """A part of an image at 1/``reduce`` of its size, and where in that its first pixel lies."""

    image: np.ndarray
    top: int
    left: int
    reduce: int


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Decodes an image as ``datamodules.decoding.images.read_image`` would, faster where it is an ordinary JPEG or PNG.

    Args:
        data: the file's bytes.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [height, width, channels] in [0, 255], contiguous.

    Raises:
        BadImage: no image, or a broken one.
    """
    frame = jpeg_frame(data)
    if frame is not None:
        return decode_part(data, frame, channels, Box(0, 0, frame.height, frame.width)).image
    if _is_plain_png(data, channels):
        flag = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        if image is not None:
            return image if channels == 3 else image[:, :, None]
    return read_image(data, channels)


def decode_part(
    data: bytes, frame: JpegFrame, channels: int, box: Box, *, reduce: int = 1, memory: np.ndarray | None = None
) -> Part:
    """Decodes what a box of a JPEG needs: the box, its surroundings and what cannot be left out.

    Args:
        data: the file's bytes.
        frame: what ``jpeg_frame`` says of it.
        channels: 1 (grey) or 3 (RGB).
        box: whose pixels will be as in the whole image, also where it is moved by one of the part's pixels.
        reduce: 1, 2, 4 or 8: the image comes at 1/reduce of its size, rounded up, which saves the inverse DCT's work;
            it averages, so nothing aliases. One that only ``read_image`` can decode comes in full.
        memory: uint8, contiguous. The image is put there if it fits: from one image to the next, it is still in the
            processor's cache.

    Returns:
        uint8 [height, width, channels] in [0, 255], contiguous, and where it lies.

    Raises:
        BadImage: a broken image.
    """
    context = (1 if reduce > 1 and frame[4:6] == _HALVED_BOTH_WAYS else _CONTEXT) * reduce
    piece = cut(data, frame, box, context)
    h, w = -(-piece.box.height // reduce), -(-piece.box.width // reduce)
    if memory is not None and h * w * channels > memory.size:
        memory = None
    kind = "RGB" if channels == 3 else "GRAY"
    try:
        image = simplejpeg.decode_jpeg(piece.data, kind, False, False, h, w, buffer=memory, strict=piece.strict)
    except ValueError:  # damaged, or of a rare kind after all
        return Part(read_image(data, channels), 0, 0, 1)
    return Part(image, piece.box.top // reduce, piece.box.left // reduce, reduce)


def _is_plain_png(data: bytes, channels: int) -> bool:
    """Whether a PNG is whole, 8-bit grey or RGB as asked for, and nothing but pixels."""
    if data[:8] != _PNG_SIGNATURE or data[-8:-4] != b"IEND":
        return False
    depth, colour = data[24], data[25]  # colour 0: grey, 2: RGB
    if depth != 8 or not (colour == 0 or (colour == 2 and channels == 3)):
        return False
    if int.from_bytes(data[16:20]) * int.from_bytes(data[20:24]) > MAX_PIXELS:
        return False
    head = data[: data.find(b"IDAT")]
    return not any(chunk in head for chunk in _PNG_CHUNKS_WITH_CARE)
