"""New pictures out of a picture, by a family that edits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from launch.inference.pictures import read_picture
from lightning_modules.core.family import ImageFamily
from lightning_modules.pictures.sizes import square


def read_to_edit(module: ImageFamily, file: Path) -> Tensor:
    """The largest centred square of a picture file, at the family's size: [1, C, H, W] in [-1, 1].

    Raises:
        FileNotFoundError, ValueError: no such picture, or a broken one.
    """
    channels, side = module.picture_shape()
    picture = read_picture(file, channels=channels or 3)
    return picture if side is None else square(picture, side)


def read_mask(file: Path, picture: Tensor, source: Path) -> Tensor:
    """What a mask keeps of a picture: bool [1, 1, H, W], True where the file is black.

    Args:
        file: the mask: of the sides of ``source``, whatever their scale, or of its square.
        picture: of ``read_to_edit``.
        source: the picture's file.

    Raises:
        FileNotFoundError, ValueError: no such picture, or a broken one; a mask of other sides, or one that keeps
            nothing, or all.
    """
    whole = read_picture(file, channels=1)
    _check_sides(whole, file, source)
    mask = square(whole, picture.shape[-1])
    known = mask < 0
    if known.all() or not known.any():
        raise ValueError(
            f"{file}: is all {'black: nothing' if known.all() else 'white: all'} would be made anew; paint white what "
            "is to be filled in, and black what stays"
        )
    return known


def _check_sides(mask: Tensor, file: Path, source: Path) -> None:
    height, width = mask.shape[2:]
    rows, columns = read_picture(source, channels=1).shape[2:]
    # Of a mask that was made smaller or larger, a side is rounded.
    fits = abs(width - height * columns / rows) <= 1 or abs(height - width * rows / columns) <= 1
    if height != width and not fits:
        raise ValueError(
            f"{file}: {width} x {height} pixels, but {source} has {columns} x {rows}: give the mask the same sides, or "
            "those of the picture's centred square"
        )


@torch.no_grad()
def edit(
    module: ImageFamily,
    picture: Tensor,
    index: Tensor,
    *,
    seed: int,
    strength: float,
    known: Tensor | None,
    labels: Tensor | None,
    resamples: int,
) -> Tensor:
    """Versions number ``index`` of a picture [1, C, H, W]; see ``Abilities.edit``."""
    pictures = picture.expand(len(index), -1, -1, -1)
    return module.edit(pictures, index, seed=seed, strength=strength, known=known, labels=labels, resamples=resamples)
