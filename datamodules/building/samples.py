"""Work of a build's workers: scan candidates, and encode samples."""

from __future__ import annotations

import hashlib

import numpy as np

from datamodules.building.candidates import Extent, Item, Source
from datamodules.building.journal import Found
from datamodules.building.options import BuildOptions
from datamodules.building.tars import CAPTION_LOST
from datamodules.decoding.images import (
    LONGEST_SIDE,
    BadImage,
    encode_image,
    is_plain_jpeg,
    read_header,
    resize_image,
    resized_size,
)
from gesso.common.text import decode_text

#: Files of more bytes are looked at before they are read.
LARGE = 16 << 20
#: Most that formats take of a pixel: four channels of 16 bits.
BYTES_OF_A_PIXEL = 8
_HEAD = 1 << 20


def examine(source: Source, options: BuildOptions, chunk: list[tuple[int, Item]]) -> list[Found]:
    """Scans candidates, in a worker."""
    return [_examine(source, options, ordinal, item) for ordinal, item in chunk]


def _examine(source: Source, options: BuildOptions, ordinal: int, item: Item) -> Found:
    try:
        _check_bytes(item.image, options)
        data = item.image.read()
        image = source.decode(item, data, options.channels, options.min_size, options.max_pixels)
        _check_stored_size(image, options)
    except BadImage as bad:
        return Found(ordinal, reason=bad.reason, detail=bad.detail)
    except OSError as error:
        return Found(ordinal, reason="unreadable", detail=error.strerror or str(error))
    lost = _caption_lost(item) if options.captions else None
    height, width, channels = image.shape
    return Found(ordinal, _digest(image, options.channels), height, width, channels, caption_lost=lost)


def _check_bytes(extent: Extent, options: BuildOptions) -> None:
    """Checks, before it is read into memory, that a large file can be an image of so many pixels at most.

    Raises:
        BadImage: it is none, or too large; of a zip's entry, whatever its few bytes would grow to.
        OSError: it cannot be read.
    """
    size = extent.size()
    if size <= LARGE:
        return
    head, pixels = extent.head(_HEAD), options.max_pixels
    try:
        height, width, _ = read_header(head)
        pixels = min(pixels, height * width)
    except BadImage:
        # Of these, the header may stand anywhere.
        if head[:2] not in (b"II", b"MM") and head[4:8] != b"ftyp":
            raise
    if size > LARGE + BYTES_OF_A_PIXEL * pixels:
        raise BadImage("too large", f"{size:,} bytes, more than an image of {pixels:,} pixels takes")


def _check_stored_size(image: np.ndarray, options: BuildOptions) -> None:
    """Checks that the format of the shards can hold an image of this size.

    Raises:
        BadImage: it is too large, maybe only after resizing.
    """
    height, width = image.shape[:2]
    if options.size is not None:
        height, width = resized_size(height, width, options.size, options.resize)
    longest = LONGEST_SIDE[options.format or "jpg"]
    if max(height, width) > longest:
        raise BadImage(
            "too large", f"{width} x {height} pixels as it would be stored; {options.format} ends at {longest}"
        )
    if height * width > max(options.max_pixels, (options.size or 0) ** 2):
        raise BadImage("too large", f"{width} x {height} pixels as it would be stored, more than {options.max_pixels}")


def _caption_lost(item: Item) -> str | None:
    """Why the caption cannot be used; None: it can, or there is none."""
    try:
        if item.caption is None or decode_text(item.caption.read()) is not None:
            return None
    except OSError as error:
        return f"its caption is left out: {error.strerror or error}"
    return CAPTION_LOST


def _digest(image: np.ndarray, channels: int | None) -> bytes:
    """sha256 of shape and pixels. A grey image counts as the colour image that it equals, unless all become grey."""
    if channels != 1 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return hashlib.sha256(np.array(image.shape, "<u4").tobytes() + image.tobytes()).digest()


def render(
    source: Source, options: BuildOptions, channels: int, items: list[Item]
) -> list[tuple[bytes, str | None, str]]:
    """Encodes images, with their labels and captions, in a worker."""
    rendered = []
    for item in items:
        try:
            image = _encoded(source, options, channels, item)
            caption = item.caption.read() if item.caption and options.captions else b""
        except (BadImage, OSError) as error:
            raise RuntimeError(f"{item.name}: changed while the build ran ({error}); run it again") from error
        rendered.append((image, item.label, (decode_text(caption) or "").strip()))
    return rendered


def _encoded(source: Source, options: BuildOptions, channels: int, item: Item) -> bytes:
    """The encoded image of the sample."""
    data = _stored(source, options, channels, item)
    if options.restart_markers:
        from datamodules.decoding.restart import with_restart_markers

        return with_restart_markers(data)
    return data


def _stored(source: Source, options: BuildOptions, channels: int, item: Item) -> bytes:
    """The encoded image without restart markers. A JPEG that needs no change is copied byte for byte."""
    data = item.image.read()
    stays = options.format == "jpg" and is_plain_jpeg(data, channels)
    if stays and options.size is None:
        return data
    image = source.decode(item, data, channels, options.min_size, options.max_pixels)
    resized = image if options.size is None else resize_image(image, options.size, options.resize)
    if stays and resized is image:
        return data
    stored_as = options.format or "jpg"
    try:
        return encode_image(resized, stored_as, options.quality)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{item.name}: cannot be stored as {stored_as} ({error}); take it out and go on") from error
