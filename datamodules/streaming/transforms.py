"""Turns an encoded image into a row of a batch: crop, resize, flip, colour jitter.

All chances are drawn from the row of random numbers that belongs to the sample's position (``order.uniforms``), never
from a generator, so that a resumed run sees the same crops. Resizing is bilinear with antialiasing, as torchvision's
and PIL's, and goes straight into the batch: ATen's uint8 kernel takes 66 µs from 256 to 224 px and 31 from 256 to
64, where OpenCV's antialiased one (INTER_AREA) takes 317 and 92, and PIL 470 and 244. What is enlarged cannot alias,
and OpenCV's bilinear kernel takes four fifths of ATen's time for it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch

from datamodules.decoding.decode import decode_image, decode_part
from datamodules.decoding.jpeg import Box, jpeg_frame
from gesso.common.pixels import LUMA

Crop = Literal["center", "random", "random_resized", "none"]

# OpenCV's own threads would fight the loader's for the same cores.
cv2.setNumThreads(0)

# What torch.nn.functional.interpolate calls; through torch.ops it takes a tenth longer.
_resize_into: Any = torch._C._nn._upsample_bilinear2d_aa
_LUMA = np.array(LUMA)
_TRIES = 10  # of random_resized, as torchvision's

# Which of a sample's random numbers is for what.
_FLIP, _JITTER, _TOP, _LEFT, _SHAPE = 0, 1, 4, 5, 6
#: Random numbers that ``Augment.render`` takes.
DRAWS = _SHAPE + 2 * _TRIES


class _Decoded(threading.local):
    """A thread's memory for decoded JPEGs: 4 MiB, from which size on numpy asks for huge pages.

    It saves a twentieth of the time of an image, at 64 px and at 224. In pages of 4 KiB, it does so in some processes
    and in others not, as they happen to share the processor's cache.
    """

    def __init__(self) -> None:
        self.memory = np.empty(4 << 20, np.uint8)


_decoded = _Decoded()


@dataclass(frozen=True)
class Augment:
    """The transforms of each image on its way into a batch.

    Args:
        size: side of the square that comes out, in pixels.
        crop: ``center``: the largest centred square, resized; ``random``: a square of ``size`` pixels cut at random and
            not resized (the largest there is of a smaller image, enlarged); ``random_resized``: a rectangle of random
            area and aspect, resized (Szegedy et al. 2014, as torchvision's RandomResizedCrop); ``none``: the whole
            image, whatever its aspect, resized.
        flip: mirror half of the images left to right.
        color_jitter: j scales brightness, contrast and saturation by factors drawn from [1 - j, 1 + j].
        scale: ``random_resized``: smallest and largest area, as parts of the image's.
        ratio: ``random_resized``: smallest and largest width/height.
    """

    size: int
    crop: Crop = "center"
    flip: bool = False
    color_jitter: float = 0.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size {self.size}: images need 1 pixel or more")
        if self.crop not in get_args(Crop):
            raise ValueError(f"crop {self.crop!r}: must be one of {', '.join(get_args(Crop))}")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter {self.color_jitter}: must be between 0 and 1")

    def row_shape(self, channels: int) -> tuple[int, ...]:
        """The shape of an image in a batch of uint8."""
        return self.size, self.size, channels

    def render(self, data: bytes, out: np.ndarray, draws: Sequence[float]) -> None:
        """Decodes ``data`` and puts it, augmented, into ``out``.

        Args:
            data: the image file's bytes.
            out: uint8 [size, size, 1 or 3], contiguous; overwritten.
            draws: ``DRAWS`` numbers in [0, 1).

        Raises:
            BadImage: no image, or a broken one.
        """
        channels = out.shape[2]
        frame = jpeg_frame(data)
        if frame is None:
            image = decode_image(data, channels)
            height, width = image.shape[:2]
            top, left, h, w = self.box(height, width, draws)
        else:
            box = self.box(frame.height, frame.width, draws)
            reduce = self._reduction(box)
            part = decode_part(data, frame, channels, box, reduce=reduce, memory=_decoded.memory)
            image = part.image
            if part.reduce > 1:
                box = self._reduce(box, frame.height, frame.width, part.reduce)
            top, left, h, w = box.top - part.top, box.left - part.left, box.height, box.width
        resize(image[top : top + h, left : left + w], out)
        if self.flip and draws[_FLIP] < 0.5:
            cv2.flip(out, 1, out)
        if self.color_jitter:
            _jitter(out, [1 + self.color_jitter * (2 * u - 1) for u in draws[_JITTER : _JITTER + 3]])

    def box(self, height: int, width: int, draws: Sequence[float]) -> Box:
        """The part of an image of this size that becomes the square."""
        if self.crop == "none":
            return Box(0, 0, height, width)
        if self.crop == "random_resized":
            box = self._random_shape(height, width, draws)
            if box is not None:
                return box
        short = min(height, width)
        side = min(short, self.size) if self.crop == "random" else short
        if self.crop == "random":
            return _place(side, side, height, width, draws)
        return Box((height - side) // 2, (width - side) // 2, side, side)

    def _random_shape(self, height: int, width: int, draws: Sequence[float]) -> Box | None:
        """A box of random area and aspect, or None where ten of them did not fit."""
        low, high = self._log_ratio
        smallest, largest = self.scale
        for at in range(_SHAPE, DRAWS, 2):
            area = height * width * (smallest + (largest - smallest) * draws[at])
            aspect = math.exp(low + (high - low) * draws[at + 1])
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return _place(h, w, height, width, draws)
        return None

    @cached_property
    def _log_ratio(self) -> tuple[float, float]:
        return math.log(self.ratio[0]), math.log(self.ratio[1])

    def _reduction(self, box: Box) -> int:
        """By how much a JPEG may shrink in decoding, and still hold ``size`` pixels along each side of the box."""
        spare = min(box.height, box.width) / self.size
        return 8 if spare >= 8 else 4 if spare >= 4 else 2 if spare >= 2 else 1

    def _reduce(self, box: Box, height: int, width: int, reduce: int) -> Box:
        """A box of an image of this size in the pixels of the reduced image, to the nearest, no smaller than needed."""
        whole_h, whole_w = -(-height // reduce), -(-width // reduce)
        h = min(max(round(box.height / reduce), self.size), whole_h)
        w = min(max(round(box.width / reduce), self.size), whole_w)
        return Box(min(round(box.top / reduce), whole_h - h), min(round(box.left / reduce), whole_w - w), h, w)


def resize(image: np.ndarray, out: np.ndarray) -> None:
    """Resizes uint8 [h, w, C] into uint8 ``out`` [H, W, C]: bilinear, antialiased, to within 2 of PIL's."""
    if image.shape == out.shape:
        np.copyto(out, image)
        return
    if image.shape[0] <= out.shape[0] and image.shape[1] <= out.shape[1]:
        cv2.resize(image, out.shape[1::-1], out, interpolation=cv2.INTER_LINEAR)  # enlarged, nothing can alias
        return
    # Not left to ATen, which would copy a crop with its own pool of threads.
    _resize_into(_nchw(np.ascontiguousarray(image)), out.shape[:2], False, out=_nchw(out))


def _nchw(image: np.ndarray) -> torch.Tensor:
    """An image [h, w, C] as a batch [1, C, h, w], in the same memory."""
    return torch.from_numpy(image[None].transpose(0, 3, 1, 2))


def _place(h: int, w: int, height: int, width: int, draws: Sequence[float]) -> Box:
    """A box of h x w anywhere in the image, each place as likely."""
    return Box(int(draws[_TOP] * (height - h + 1)), int(draws[_LEFT] * (width - w + 1)), h, w)


def _jitter(out: np.ndarray, factors: Sequence[float]) -> None:
    """Brightness, contrast and saturation in one affine map of the pixels, in place.

    The factors act in this order, as torchvision's do: x b, then away from the image's mean luma, then away from the
    pixel's own. (There, each step is also clipped to [0, 255]; here only the result is.)
    """
    brightness, contrast, saturation = factors
    channels = out.shape[2]
    mean = np.array(cv2.mean(out)[:channels])
    luma = _LUMA if channels == 3 else np.ones(1)
    gain = brightness * contrast * (saturation * np.eye(channels) + (1 - saturation) * luma)
    offset = np.full((channels, 1), brightness * (1 - contrast) * (luma @ mean))
    out[...] = cv2.transform(out, np.hstack([gain, offset])).reshape(out.shape)
