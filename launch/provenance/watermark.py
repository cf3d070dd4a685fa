"""Invisible watermarks: eight bytes in a picture's colours, that live through what is commonly done to pictures."""

from __future__ import annotations

import binascii
from typing import Protocol

import cv2
import numpy as np

#: A watermark's message has so many bytes.
MESSAGE_BYTES = 8
_CHECK_BYTES = 3
#: Message and checksum.
BITS = 8 * (MESSAGE_BYTES + _CHECK_BYTES)


class Watermark(Protocol):
    """Puts a message into pictures, and reads it out again."""

    @property
    def name(self) -> str:
        """The method's name, which credentials carry."""

    def embed(self, image: np.ndarray, message: bytes) -> np.ndarray:
        """A picture with the message in it, uint8 as ``image``: [H, W, 1 or 3] in sRGB.

        Raises:
            ValueError: the picture is too small, or the message is not ``MESSAGE_BYTES`` long.
        """

    def extract(self, image: np.ndarray) -> bytes | None:
        """The message in a picture, uint8 [H, W, 1 or 3]; None: there is none, or it cannot be read any more."""


class DwtDctSvd:
    """dwtDctSvd (Navas et al. 2008, "DWT-DCT-SVD based watermarking"; quantised as by the package invisible-watermark).

    The means of 2 x 2 pixels (the low band of a Haar wavelet) are cut into blocks of 4 x 4, and the largest singular
    value of a block's DCT is moved into the lower or the upper half of a step, for a 0 or a 1. The DCT multiplies a
    block by orthogonal matrices, which changes no singular value: it is left out here. Each bit is in many blocks, and
    what they say is averaged.

    Unlike there, blocks are cut on a copy of a fixed size, and the change is enlarged to the picture's own: a picture
    that was made smaller is read without knowing how large it was. Cropping moves every block, and nothing is read.

    Args:
        step: of the quantisation; more is more robust, and easier to see.
    """

    name = "dwtDctSvd"
    #: Sides in pixels of the copies that hold blocks; a picture takes the largest that it is not smaller than.
    SIDES = (256, 128, 64)

    def __init__(self, step: float = 36.0) -> None:
        self.step = step

    def embed(self, image: np.ndarray, message: bytes) -> np.ndarray:
        """See ``Watermark.embed``."""
        if len(message) != MESSAGE_BYTES:
            raise ValueError(f"a watermark's message has {MESSAGE_BYTES} bytes, not {len(message)}")
        height, width = image.shape[:2]
        side = next((side for side in self.SIDES if side <= min(height, width)), None)
        if side is None:
            raise ValueError(f"{width} x {height} pixels are too small for a watermark: {self.SIDES[-1]} or more")
        planes = _planes(image)
        changed = planes.copy()
        for number in _carriers(planes):
            copy = _resized(planes[..., number], side, side)
            change = self._quantised(copy, _bits(message), number) - copy
            changed[..., number] += _resized(change, height, width)
        return _pixels(changed)

    def extract(self, image: np.ndarray) -> bytes | None:
        """See ``Watermark.extract``."""
        for side in self.SIDES:
            found = np.packbits(self.soft_bits(image, side) > 0).tobytes()
            message = found[:MESSAGE_BYTES]
            if found[MESSAGE_BYTES:] == _checksum(message):
                return message
        return None

    def soft_bits(self, image: np.ndarray, side: int) -> np.ndarray:
        """How surely each bit is a 1, float [BITS]: from -1 (surely a 0) to 1, read on a copy of ``side`` pixels."""
        planes = _planes(image)
        votes, counts = np.zeros(BITS), np.zeros(BITS)
        for number in _carriers(planes):
            values = _largest_singular(_blocks(_means(_resized(planes[..., number], side, side))))
            # 0 lies at a quarter of a step and 1 at three: a wave has its crests there, and is small in between.
            said = -np.sin(2 * np.pi * values / self.step)
            index = _order(len(said), number)
            votes += np.bincount(index, said, BITS)
            counts += np.bincount(index, minlength=BITS)
        return votes / np.maximum(counts, 1)

    def _quantised(self, plane: np.ndarray, bits: np.ndarray, number: int) -> np.ndarray:
        """A plane [S, S] whose blocks hold ``bits``."""
        blocks = _blocks(_means(plane))
        left, values, right = np.linalg.svd(blocks)
        wanted = bits[_order(len(blocks), number)]
        values[:, 0] = (values[:, 0] // self.step + 0.25 + 0.5 * wanted) * self.step
        moved = (left * values[:, None, :]) @ right - blocks
        # A mean that goes into the low band doubled moves its four pixels by half as much.
        return plane + np.kron(_joined(moved), np.full((2, 2), 0.5))


def read_message(text: str) -> bytes:
    """A message as the command line takes it: 16 hexadecimal digits after ``0x``, or up to 8 bytes of text.

    >>> read_message("0x0123456789abcdef"), read_message("studio")
    (b'\\x01#Eg\\x89\\xab\\xcd\\xef', b'studio\\x00\\x00')

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("0x"):
        try:
            message = bytes.fromhex(text[2:])
        except ValueError as error:
            raise ValueError(f"--watermark {text}: no hexadecimal digits after 0x") from error
    else:
        message = text.encode().ljust(MESSAGE_BYTES, b"\0")
    if len(message) != MESSAGE_BYTES or not message.strip(b"\0"):
        raise ValueError(f"--watermark {text!r}: give 1 to {MESSAGE_BYTES} bytes of text, or 0x and 16 digits")
    return message


def written_message(message: bytes) -> str:
    """A message in words: its text where it is one that can be printed, else hexadecimal digits."""
    try:
        text = message.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        text = ""
    return text if text and text.isprintable() and not text.startswith("0x") else f"0x{message.hex()}"


def _checksum(message: bytes) -> bytes:
    return binascii.crc32(message).to_bytes(4, "big")[:_CHECK_BYTES]


def _bits(message: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(message + _checksum(message), np.uint8))


def _order(blocks: int, number: int) -> np.ndarray:
    """The bit that each block holds: all of them equally often, and neighbours not in every plane the same."""
    return (37 * np.arange(blocks) + BITS // 2 * number) % BITS


def _planes(image: np.ndarray) -> np.ndarray:
    """Luma, or luma and two colour differences: float32 [H, W, 1 or 3], around 0 to 255."""
    if image.shape[2] == 1:
        return image.astype(np.float32)
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb) * 255


def _pixels(planes: np.ndarray) -> np.ndarray:
    if planes.shape[2] == 3:
        planes = cv2.cvtColor(planes.astype(np.float32) / 255, cv2.COLOR_YCrCb2RGB) * 255
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8)


def _carriers(planes: np.ndarray) -> tuple[int, ...]:
    """The planes that hold the message: colours, where changes are seen least; luma where there are none."""
    return (0,) if planes.shape[2] == 1 else (1, 2)


def _resized(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    smaller = plane.shape[0] >= height and plane.shape[1] >= width
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(plane.astype(np.float32), (width, height), interpolation=method).astype(np.float64)


def _means(plane: np.ndarray) -> np.ndarray:
    """The low band of the orthonormal Haar wavelet: twice the means of 2 x 2 pixels."""
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 2


def _blocks(plane: np.ndarray) -> np.ndarray:
    """[S, S] as its blocks [N, 4, 4]."""
    count = len(plane) // 4
    return plane.reshape(count, 4, count, 4).swapaxes(1, 2).reshape(-1, 4, 4)


def _joined(blocks: np.ndarray) -> np.ndarray:
    """The inverse of ``_blocks``."""
    count = round(len(blocks) ** 0.5)
    return blocks.reshape(count, count, 4, 4).swapaxes(1, 2).reshape(4 * count, 4 * count)


def _largest_singular(blocks: np.ndarray) -> np.ndarray:
    return np.linalg.svd(blocks, compute_uv=False)[:, 0]
