"""What the workers of a build do: look at candidates, and make samples of those that are kept."""

from __future__ import annotations

import hashlib

import numpy as np

from datamodules.building.journal import Found
from datamodules.building.options import BuildOptions
from datamodules.building.sources import Item, Source
from datamodules.decoding.images import BadImage, encode_image, is_plain_jpeg, resize_image


def examine(source: Source, options: BuildOptions, chunk: list[tuple[int, Item]]) -> list[Found]:
    """A worker's part of the scan."""
    results = []
    for ordinal, item in chunk:
        try:
            data = item.image.read()
            image = source.decode(item, data, options.channels, options.min_size, options.max_pixels)
        except BadImage as bad:
            results.append(Found(ordinal, reason=bad.reason, detail=bad.detail))
        except OSError as error:
            results.append(Found(ordinal, reason="unreadable", detail=error.strerror or str(error)))
        else:
            results.append(Found(ordinal, _digest(image, options.channels), *image.shape))
    return results


def _digest(image: np.ndarray, channels: int | None) -> bytes:
    """sha256 of shape and pixels. A grey image counts as the colour image that it equals, unless all become grey."""
    if channels != 1 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return hashlib.sha256(np.array(image.shape, "<u4").tobytes() + image.tobytes()).digest()


def render(
    source: Source, options: BuildOptions, channels: int, items: list[Item]
) -> list[tuple[bytes, str | None, str]]:
    """A worker's part of the writing: encoded images with their labels and captions."""
    rendered = []
    for item in items:
        try:
            image = _encoded(source, options, channels, item)
            caption = item.caption.read() if item.caption and options.captions else b""
        except (BadImage, OSError) as error:
            raise RuntimeError(f"{item.name}: changed while the build ran ({error}); run it again") from error
        rendered.append((image, item.label, caption.decode(errors="replace").strip()))
    return rendered


def _encoded(source: Source, options: BuildOptions, channels: int, item: Item) -> bytes:
    """The sample's image, as it is stored."""
    data = _stored(source, options, channels, item)
    if options.restart_markers:
        from datamodules.decoding.restart import with_restart_markers

        return with_restart_markers(data)
    return data


def _stored(source: Source, options: BuildOptions, channels: int, item: Item) -> bytes:
    """The sample's image without new markers. A JPEG in which nothing has to change stays what it is, byte for byte."""
    data = item.image.read()
    stays = options.format == "jpg" and is_plain_jpeg(data, channels)
    if stays and options.size is None:
        return data
    image = source.decode(item, data, channels, options.min_size, options.max_pixels)
    resized = image if options.size is None else resize_image(image, options.size, options.resize)
    return data if stays and resized is image else encode_image(resized, options.format or "jpg", options.quality)
