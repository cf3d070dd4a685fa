"""Reads images from untrusted sources, and resizes them.

Everything that people put into image folders comes out as upright 8-bit sRGB or grey: EXIF rotation, embedded colour
profiles, CMYK (with Adobe's inversion), palettes, 16-bit grey, transparency, bilevel. What cannot be read raises
``BadImage`` with a reason to count. The loader's hot path has a faster decoder and comes here for the odd ones.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageCms

from gesso.common.text import one_line

BadImageReason = Literal["undecodable", "truncated", "too small", "too large"]
ResizeMode = Literal["center_crop", "squash", "shortest", "none"]
ImageFormat = Literal["jpg", "png", "webp"]

#: PIL refuses images above this many pixels whatever we ask, so no limit of ours may exceed it.
PIXEL_LIMIT = 2 * (Image.MAX_IMAGE_PIXELS or 0)

#: Longest side that a format can hold, in pixels.
LONGEST_SIDE: dict[ImageFormat, int] = {"jpg": 65_500, "png": 2**31 - 1, "webp": 16_383}

#: Formats that PIL may try. Not all it knows: opening an EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

#: EXIF orientation -> the transposition that makes the image upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_EXIF_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
# What PIL's decoders raise on broken files, by experience: each format has its own.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError)
_warnings_lock = threading.Lock()


class BadImage(ValueError):
    """An image that is left out, and why: ``reason`` is one of ``BadImageReason``, the message says more."""

    def __init__(self, reason: BadImageReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: BadImageReason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def read_image(
    data: bytes, channels: int | None = None, *, min_size: int = 1, max_pixels: int = 100_000_000
) -> np.ndarray:
    """Decodes one image (of an animation: its first frame) upright and in sRGB.

    Colours under an embedded profile become sRGB (a profile that is broken is ignored); transparent parts are laid on
    white; 16-bit grey is scaled to 8 bits, not clipped.

    Args:
        data: the file's bytes.
        channels: 1 for grey (ITU-R 601 luma), 3 for RGB, None for what the file has.
        min_size: shortest side allowed, in pixels.
        max_pixels: most pixels allowed, judged before decoding (decompression bombs); at most ``PIXEL_LIMIT``.

    Returns:
        uint8 [height, width, 1 or 3] in [0, 255], contiguous and writable.

    Raises:
        BadImage: with its reason.
    """
    with as_bad_image(data):
        image = open_image(data)
        check_size(image, 1, min_size=min_size, max_pixels=max_pixels)
        with _quiet() if image.format == "TIFF" else nullcontext():  # the one whose decoder warns as well
            image.load()
        return upright_srgb(image, channels)


def check_size(image: Image.Image, frames: int, *, min_size: int, max_pixels: int) -> None:
    """Raises ``BadImage`` for an image of so many frames that is too small, or too large to be decoded."""
    width, height = image.size
    if width * height * frames > max_pixels:
        of_frames = f" in each of {frames} frames" if frames > 1 else ""
        raise BadImage("too large", f"{width} x {height} pixels{of_frames}, more than {max_pixels}")
    if min(width, height) < min_size:
        raise BadImage("too small", f"{width} x {height} pixels, the shorter side under {min_size}")


def upright_srgb(image: Image.Image, channels: int | None) -> np.ndarray:
    """A decoded image as ``read_image`` gives it: uint8 [height, width, 1 or 3]."""
    orientation = _orientation(image)
    image = _to_srgb(_flatten(image), image.info.get("icc_profile"))
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    array = np.array(image)
    return array[:, :, None] if array.ndim == 2 else array


def read_header(data: bytes) -> tuple[int, int, int]:
    """(height, width, channels) that ``read_image`` would give, without decoding.

    Raises:
        BadImage: not an image.
    """
    with as_bad_image(data):
        image = open_image(data)
        width, height = image.size
        # A PNG would be decoded in search of its EXIF, which almost none has.
        if image.format != "PNG" and _orientation(image) >= 5:
            width, height = height, width
    return height, width, 1 if image.mode in _GREY or image.mode.startswith("I") else 3


def encode_image(image: np.ndarray, format: ImageFormat, quality: int) -> bytes:
    """Encodes uint8 [height, width, 1 or 3]; the same pixels give the same bytes.

    JPEG keeps full colour resolution (4:4:4): what a generator learns from should not have half of it averaged away.
    ``quality`` is 1 to 100 for JPEG and WebP; PNG is lossless.
    """
    options: dict[str, Any] = {
        "jpg": {"format": "JPEG", "quality": quality, "subsampling": "4:4:4"},
        "png": {"format": "PNG", "compress_level": 6},
        "webp": {"format": "WEBP", "quality": quality, "method": 4},
    }[format]
    buffer = BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, **options)
    return buffer.getvalue()


def is_plain_jpeg(data: bytes, channels: int) -> bool:
    """Whether ``data`` is a JPEG that ``read_image`` would decode as it stands: right channels, upright, sRGB."""
    if not data.startswith(b"\xff\xd8"):
        return False
    try:
        image = open_image(data)
        return (
            image.format == "JPEG"
            and image.mode == ("L" if channels == 1 else "RGB")
            and _orientation(image) not in UPRIGHT
            and _foreign_profile(image.info.get("icc_profile")) is None
        )
    except _BROKEN:
        return False


def resize_image(image: np.ndarray, size: int, mode: ResizeMode) -> np.ndarray:
    """Resizes with PIL's Lanczos filter, whose support grows with the reduction, so that nothing aliases.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: pixels; its meaning depends on ``mode``.
        mode: ``center_crop`` takes the largest centred square to size x size; ``squash`` the whole image, whatever its
            aspect; ``shortest`` makes the shorter side ``size`` and keeps the aspect; ``none`` changes nothing.

    Returns:
        uint8 [new height, new width, same channels]; ``image`` itself where nothing changes.
    """
    height, width = image.shape[:2]
    target = resized_size(height, width, size, mode)
    left = top = 0
    if mode == "center_crop":
        short = min(height, width)
        # Whole pixels: a square cut at half a pixel would blur what need not be resampled at all.
        left, top = (width - short) // 2, (height - short) // 2
        height = width = short
    if target == (height, width):
        unchanged = image.shape[:2] == target
        return image if unchanged else np.ascontiguousarray(image[top : top + height, left : left + width])
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[:, :, 0] if grey else image)
    box = (left, top, left + width, top + height)
    resized = np.array(picture.resize(target[::-1], Image.Resampling.LANCZOS, box=box))
    return resized[:, :, None] if grey else resized


def resized_size(height: int, width: int, size: int, mode: ResizeMode) -> tuple[int, int]:
    """(height, width) that ``resize_image`` gives."""
    if mode not in get_args(ResizeMode):
        raise ValueError(f"resize mode {mode!r}: must be one of {', '.join(get_args(ResizeMode))}")
    if mode == "none":
        return height, width
    if mode == "shortest":
        short = min(height, width)
        return max(1, round(height * size / short)), max(1, round(width * size / short))
    return size, size


@contextmanager
def as_bad_image(data: bytes) -> Iterator[None]:
    """Context manager: whatever PIL raises on a broken file becomes a ``BadImage`` with its reason."""
    try:
        yield
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too large", str(error)) from error
    except _BROKEN as error:
        raise BadImage("truncated" if _is_truncated(data, error) else "undecodable", _reason(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences PIL's warnings about files. Locked, since Python's list of filters belongs to all threads."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_image(data: bytes) -> Image.Image:
    """Parses the header; decodes nothing yet."""
    Image.init()
    with _quiet():
        return Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none or it is broken. PIL turns TIFFs itself, and then says 1."""
    try:
        with _quiet():
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except _BROKEN:
        return 1


def _flatten(image: Image.Image) -> Image.Image:
    """To mode L, RGB or CMYK: eight bits, no palette, nothing transparent."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode in ("F", "LAB"):
        raise BadImage("undecodable", f"pixels of kind {image.mode} have no defined range")
    grey = image.mode in _GREY
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        white = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
        white.paste(image.convert(white.mode), mask=image.getchannel("A"))
        return white
    if image.mode == "CMYK":
        return image
    return image.convert("L" if grey else "RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit grey levels to 8 bits: 65535 becomes 255, to the nearest."""
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise BadImage("undecodable", "grey levels beyond 16 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts from the embedded profile's colours to sRGB, in mode L or RGB."""
    foreign = _foreign_profile(profile)
    if foreign is not None:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, foreign, srgb, outputMode="RGB")
            if converted is not None:
                return converted.convert("L") if image.mode == "L" else converted
        except (ImageCms.PyCMSError, *_BROKEN):
            pass  # A profile that does not fit its image: every viewer shows such files without it, and so do we.
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _foreign_profile(profile: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The embedded profile, unless there is none, it cannot be read or it is sRGB."""
    if not profile:
        return None
    try:
        parsed = ImageCms.ImageCmsProfile(BytesIO(profile))
        return None if "sRGB" in ImageCms.getProfileDescription(parsed) else parsed
    except (ImageCms.PyCMSError, *_BROKEN):
        return None


def _is_truncated(data: bytes, error: Exception) -> bool:
    """Whether a file that failed to decode ends too early, rather than being broken or no image at all."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + struct.unpack("<I", data[4:8])[0]
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known format"
    return one_line(error)
