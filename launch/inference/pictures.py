"""Image files: pictures to tensors, and tensors to grids to files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.decoding.images import (
    PIXEL_LIMIT,
    BadImage,
    as_bad_image,
    check_size,
    read_image,
    upright_srgb,
)
from gesso.common.arguments import whole
from gesso.common.files import writing_whole
from gesso.common.pixels import check_values, to_float, to_uint8
from gesso.common.ranges import Range

#: What is taken for a picture: an image file, a PIL image, or a tensor [C, H, W] or [N, C, H, W] in [-1, 1] or uint8.
Picture: TypeAlias = str | os.PathLike[str] | Image.Image | Tensor
Decoded = TypeVar("Decoded")
#: The formats that pictures are written in, by the name's ending.
WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95}),
    ".gif": ("GIF", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
#: What each written file says of its maker, in EXIF's "Software" or a comment; BMP has no place for it.
MAKER = "gesso"
_SOFTWARE = 0x0131
#: Grids of tiny images are enlarged to this width in pixels: digits of 28 x 28 are specks on today's screens.
LEGIBLE_WIDTH = 600

#: What lies between the images, and where a last row ends early.
GROUND = 255


class Finish(Protocol):
    """What becomes of pictures on their way into files, such as ``launch.provenance.Publication``."""

    def of(self, source: Path) -> Self:
        """The same for pictures that are made of the file ``source``."""

    def check(self, path: Path) -> Path:
        """Raises a ValueError where a file of this name cannot be finished; gives ``path`` back."""

    def mark(self, image: np.ndarray) -> np.ndarray:
        """What is written in place of a picture, uint8 [H, W, 1 or 3]."""

    def seal(self, file: Path, title: str) -> None:
        """Changes a file that is whole, and has yet to get its name ``title``."""

    def enter(self, path: Path, image: np.ndarray | None) -> None:
        """Takes note of a file with its first picture, uint8 [H, W, 1 or 3]; None: a video."""


def read_picture(file: Path, *, channels: int = 3) -> Tensor:
    """An image file, upright and in sRGB: [1, channels, H, W] in [-1, 1].

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no image, or a broken one.
    """
    return as_tensor(decode_file(file, lambda data: read_image(data, channels)))


def as_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, C] as [1, C, H, W] in [-1, 1]."""
    return to_float(torch.from_numpy(image)).permute(2, 0, 1)[None]


def decode_file(file: Path, decode: Callable[[bytes], Decoded]) -> Decoded:
    """What ``decode`` makes of a picture file's bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no image, or a broken one.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such picture")
    try:
        return decode(file.read_bytes())
    except BadImage as error:
        raise ValueError(f"{file}: not a picture that can be read ({error})") from error


def as_picture(picture: Picture, *, channels: int = 3) -> Tensor:
    """A picture as a tensor [N, C, H, W] in [-1, 1]: an image file, a PIL image, or a tensor with or without N.

    Args:
        picture: the picture; a PIL image becomes upright and sRGB, as a file does; a tensor of RGB keeps its channels.
        channels: 1 or 3; a grey tensor is repeated for 3.

    Raises:
        FileNotFoundError, ValueError: no such picture, no pixels, or values of another range.
    """
    if isinstance(picture, Tensor):
        batch = picture[None] if picture.dim() == 3 else picture
        if batch.dim() != 4 or batch.shape[1] not in (1, 3):
            raise ValueError(
                f"a picture is a tensor [C, H, W] or [N, C, H, W] with C 1 or 3, not {list(picture.shape)}"
            )
        check_values(batch, "a picture")
        batch = to_float(batch) if batch.dtype == torch.uint8 else batch.float()
        return batch.expand(-1, max(channels, batch.shape[1]), -1, -1)
    if isinstance(picture, Image.Image):
        try:
            with as_bad_image(b""):
                check_size(picture, 1, min_size=1, max_pixels=PIXEL_LIMIT)
                return as_tensor(upright_srgb(picture, channels))
        except BadImage as error:
            raise ValueError(f"a PIL image of mode {picture.mode} cannot be used ({error.detail})") from error
    if not isinstance(picture, str | os.PathLike):
        raise ValueError(f"a picture is a file, a PIL image or a tensor, not a {type(picture).__name__}")
    return read_picture(Path(picture), channels=channels)


def pil_image(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1 or 3] as a PIL image."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def image_grid(
    images: Tensor, columns: int | None = None, *, padding: int = 2, min_width: int = LEGIBLE_WIDTH
) -> np.ndarray:
    """Images side by side, row by row, on a white ground.

    Args:
        images: [N, C, H, W] with 1 or 3 channels, float in [-1, 1] or uint8.
        columns: images in a row; None makes the grid about square.
        padding: pixels around and between the images.
        min_width: a narrower grid has each pixel of its images repeated a whole number of times, up to this width in
            pixels; 0 leaves every image as it is.

    Returns:
        uint8 [height, width, C].

    Raises:
        ValueError: there are no images, or they have neither 1 nor 3 channels; or fewer than 1 column.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"a grid needs a tensor of images, not a {type(images).__name__}: torch.as_tensor makes one")
    if images.dim() != 4 or len(images) == 0 or images.shape[1] not in (1, 3):
        raise ValueError(f"a grid needs images [N, 1 or 3, H, W] with N > 0, not {list(images.shape)}")
    count = len(images)
    wide = math.ceil(math.sqrt(count)) if columns is None else whole(columns, "columns", Range(1))
    columns = min(wide, count)
    tiles = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    room = min_width - padding * (columns + 1)
    tiles = upscale(tiles, max(1, math.ceil(room / (columns * tiles.shape[2]))))
    height, width = tiles.shape[1] + padding, tiles.shape[2] + padding
    rows = math.ceil(count / columns)
    grid = np.full((rows * height + padding, columns * width + padding, tiles.shape[3]), GROUND, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * height + padding, column * width + padding
        grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return grid


def upscale(images: np.ndarray, factor: int) -> np.ndarray:
    """[..., H, W, C] to [..., factor * H, factor * W, C], each pixel repeated: nothing is invented between them."""
    return images if factor == 1 else images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def check_ending(path: Path) -> Path:
    """Raises a ValueError when the name ends in something that ``save_picture`` does not write; gives ``path`` back."""
    if path.suffix and path.suffix.lower() not in WRITTEN:
        raise ValueError(f"{path}: pictures are written as {', '.join(WRITTEN)}; end the name in one of these")
    return path


def is_ours(path: Path) -> bool:
    """Whether ``save_frames`` has written this file, as far as it says so itself."""
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == MAKER.encode() or image.getexif().get(_SOFTWARE) == MAKER
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def check_free(path: Path, *, ours: Callable[[Path], bool] = is_ours) -> Path:
    """Checks that a result takes no other file's place: that of an earlier result alone; gives ``path`` back.

    Args:
        path: the file to write.
        ours: whether a file is an earlier result.

    Raises:
        ValueError: there is a folder, or a file that is none of ours.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file")
    empty = path.is_file() and not path.stat().st_size
    if os.path.lexists(path) and not empty and not ours(path):
        raise ValueError(f"{path}: is there already, and gesso has not made it: give another name, or remove it")
    return path


def save_picture(image: np.ndarray, path: Path, *, finish: Finish | None = None) -> Path:
    """Writes uint8 [H, W], [H, W, 1] or [H, W, 3] in the format that the name ends in; PNG where it has no ending.

    Readers never see half a picture. PNG, TIFF and BMP keep every pixel; JPEG and WebP are of quality 95. ``finish``:
    see ``save_frames``.

    Raises:
        ValueError: see ``check_ending``.
        OSError: it cannot be written; the file that was there before stays.
    """
    return save_frames([image], path, finish=finish)


def save_frames(
    images: Sequence[np.ndarray],
    path: Path,
    milliseconds: Sequence[float] = (),
    *,
    plays: int = 0,
    finish: Finish | None = None,
) -> Path:
    """Writes pictures like ``save_picture``; several become an animation, which PNG, WebP and GIF can hold.

    Args:
        images: uint8 [H, W], [H, W, 1] or [H, W, 3], all of one size.
        path: the file.
        milliseconds: how long each is shown.
        plays: how often the animation is shown; 0: for ever.
        finish: what else becomes of the pictures and the file: a watermark, credentials, a line in a journal.

    Raises:
        ValueError: see ``check_ending``; or there are several pictures, and this format holds only one.
        OSError: it cannot be written; the file that was there before stays.
    """
    format, options = WRITTEN[check_ending(path).suffix.lower() or ".png"]
    if format == "GIF":
        options = {**options, "comment": MAKER}
    elif format != "BMP":
        exif = Image.Exif()
        exif[_SOFTWARE] = MAKER
        options = {**options, "exif": exif}
    pixels = [image if image.ndim == 3 else image[:, :, None] for image in images]
    if finish is not None:
        finish.check(path)
        pixels = [finish.mark(image) for image in pixels]
    first, *others = [pil_image(image) for image in pixels]
    if others:
        if format not in ("PNG", "WEBP", "GIF"):
            raise ValueError(f"{path}: {len(images)} frames, which only .png, .webp and .gif can hold")
        options = {**options, "save_all": True, "append_images": others, "duration": list(milliseconds)}
        if format != "GIF":
            options["loop"] = plays
        elif plays != 1:
            options["loop"] = plays and plays - 1  # a GIF says how often it is shown again
    with writing_whole(path) as partial:
        first.save(partial, format=format, **options)
        if finish is not None:
            finish.seal(partial, path.name)
    if finish is not None:
        finish.enter(path, pixels[0])
    return path
