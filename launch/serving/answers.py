"""Pictures in and out of a server: bytes of strangers to pixels, pixels to the bytes of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from datamodules.decoding.images import BadImage, read_image, resize_image
from launch.inference.pictures import MAKER, WRITTEN, pil_image

Format = Literal["png", "jpg", "webp"]
#: Media types of the answers.
TYPES: dict[Format, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_SOFTWARE = 0x0131


@dataclass(frozen=True)
class Origin:
    """Where the picture of an answer comes from: what credentials would say of it.

    Args:
        model: name of the model.
        what: in a few words, see ``Facts``.
        settings: what was asked for, by the request's names.
        sources: bytes of the pictures that it was made of, as they were sent, the content first.
    """

    model: str
    what: str
    settings: Mapping[str, object] = field(default_factory=dict)
    sources: tuple[bytes, ...] = ()


def decoded(data: bytes, name: str, *, channels: int | None, max_pixels: int, max_side: int) -> np.ndarray:
    """A picture that was sent, upright and in sRGB: uint8 [H, W, channels].

    Its size is judged by its header, before anything is decoded.

    Args:
        data: the file's bytes.
        name: of the field, for the error.
        channels: 1, 3, or None: as the picture has it.
        max_pixels: most pixels that are decoded.
        max_side: a longer one is brought to it.

    Raises:
        ValueError: no picture, a broken one, or too large a one; one line.
    """
    try:
        picture = read_image(data, channels, max_pixels=max_pixels)
    except BadImage as error:
        raise ValueError(f"{name} is not a picture that can be read ({error})") from error
    if max(picture.shape[:2]) <= max_side:
        return picture
    scale = max_side / max(picture.shape[:2])
    return resize_image(picture, max(1, round(min(picture.shape[:2]) * scale)), "shortest")


#: Puts credentials into the bytes of an answer.
Seal = Callable[[bytes, Origin], bytes]


def answered(picture: np.ndarray, format: Format, origin: Origin, seal: Seal | None = None) -> bytes:
    """The bytes of an answer: the one place where a server's pictures become files.

    Args:
        picture: uint8 [H, W, 1 or 3].
        format: PNG keeps every pixel; JPEG and WebP are of quality 95.
        origin: where it comes from.
        seal: what puts that into the file; None: it is not told.
    """
    kind, options = WRITTEN[f".{format}"]
    exif = Image.Exif()
    exif[_SOFTWARE] = MAKER
    buffer = BytesIO()
    pil_image(picture).save(buffer, format=kind, exif=exif, **options)
    data = buffer.getvalue()
    return data if seal is None else seal(data, origin)
