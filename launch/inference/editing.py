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


def read_mask(file: Path, picture: Tensor) -> Tensor:
    """What a mask keeps of a picture: bool [1, 1, H, W], True where the file is black.

    Raises:
        FileNotFoundError, ValueError: no such picture, or a broken one; or a mask that keeps nothing, or all.
    """
    mask = square(read_picture(file, channels=1), picture.shape[-1])
    known = mask < 0
    if known.all() or not known.any():
        raise ValueError(
            f"{file}: is all {'black: nothing' if known.all() else 'white: all'} would be made anew; paint white what "
            "is to be filled in, and black what stays"
        )
    return known


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
