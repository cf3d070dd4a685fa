"""Reads what a training never looks at: the frames of an animated picture, and masks with their transparency."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.decoding.images import as_bad_image, check_size, open_image, read_image, upright_srgb

#: Formats whose frames follow each other in time; those of a TIFF are pages, those of a JPEG other views.
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
#: So many pixels, over all frames, are kept in memory at most.
FRAME_PIXELS = 500_000_000


class Frames(NamedTuple):
    """A picture file's frames: one, unless it is animated.

    Attributes:
        pictures: uint8 [height, width, 1 or 3] each, upright and in sRGB.
        milliseconds: how long each is shown; [0] for a picture that does not move.
        plays: how often the animation is shown; 0: for ever.
    """

    pictures: list[np.ndarray]
    milliseconds: list[float]
    plays: int


def read_frames(data: bytes, channels: int) -> Frames:
    """All frames of a picture file, each decoded as ``read_image`` decodes the first.

    Args:
        data: the file's bytes.
        channels: 1 for grey, 3 for RGB.

    Raises:
        BadImage: it is no image, a frame of it is broken, or all of them together are too large.
    """
    with as_bad_image(data):
        image = open_image(data)
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        if count == 1:
            return Frames([read_image(data, channels)], [0], 1)
        check_size(image, count, min_size=1, max_pixels=FRAME_PIXELS)
        # A PNG may begin with a picture for viewers that know no animation.
        first = int(bool(image.info.get("default_image")))
        pictures, milliseconds = [], []
        for number in range(first, count):
            image.seek(number)
            image.load()
            milliseconds.append(float(image.info.get("duration", 0)))
            pictures.append(upright_srgb(image, channels))
        return Frames(pictures, milliseconds, _plays(image))


def _plays(image: Image.Image) -> int:
    loop = image.info.get("loop")
    if image.format != "GIF":
        return int(loop or 0)
    # A GIF names how often it is shown again, and without a name is shown once.
    return 1 if loop is None else loop and loop + 1


def read_mask(data: bytes) -> np.ndarray:
    """A mask, uint8 [height, width]: 255 where it selects, 0 where it does not.

    White and opaque selects. What is transparent does not, unless transparency is all there is: of a picture in one
    colour, the opaque parts select.

    Raises:
        BadImage: it is no image.
    """
    with as_bad_image(data):
        image = open_image(data)
        image.load()
        if not image.has_transparency_data:
            return read_image(data, 1)[:, :, 0]
        shades = image.convert("RGBA")
        alpha = shades.getchannel("A")
        alpha.info.pop("icc_profile", None)  # it speaks of colours
        opacity, grey = upright_srgb(alpha, 1)[:, :, 0], upright_srgb(shades.convert("RGB"), 1)[:, :, 0]
        if opacity.min() < opacity.max() and np.ptp(grey[opacity > 0]) == 0:
            return opacity
        return np.round(grey * (opacity / 255.0)).astype(np.uint8)
