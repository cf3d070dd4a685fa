"""Pictures through a translating family: files to files, pictures to tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gesso.common.arguments import whole
from gesso.common.ranges import Range
from launch.inference.animations import convert_file
from launch.inference.pictures import Finish, Picture, as_picture
from lightning_modules.core.family import ImageFamily
from lightning_modules.pictures.sizes import fit


@torch.no_grad()
def translate(
    module: ImageFamily,
    picture: Picture,
    direction: str | None,
    *,
    size: int | None = None,
    style: Tensor | None = None,
) -> Tensor:
    """A picture, or several of one size, put into the other domain: [N, C, H, W] in [-1, 1], on the CPU.

    Args:
        module: the family.
        picture: see ``Picture``.
        direction: which way; None: the family's main one.
        size: longer side of the result in pixels; None: the picture's own.
        style: of the result, [1, D]: see ``Abilities.translate_in_style``; None: the family's choice.

    Raises:
        ValueError: the family does not translate, not this way, or not pictures of so many channels.
    """
    images, chosen = _prepared(module, picture, direction, size)
    made = module.translate(images, chosen) if style is None else module.translate_in_style(images, chosen, style)
    return made.float().cpu()


def _prepared(module: ImageFamily, picture: Picture, direction: str | None, size: int | None) -> tuple[Tensor, str]:
    """The picture as the family takes it, on its device, and the direction."""
    chosen = module.known_direction(direction)
    channels = module.batch_spec().channels
    images = as_picture(picture, channels=channels or 3)
    if channels is not None and images.shape[1] != channels:
        raise ValueError(
            f"the picture has {images.shape[1]} channels, {type(module).__name__} was built for {channels}"
        )
    if size is not None:
        images = fit(images, whole(size, "size", Range(1)))
    return images.to(module.device), chosen


def translate_file(
    module: ImageFamily,
    file: Path,
    out: Path,
    direction: str | None,
    *,
    size: int | None,
    style: Tensor | None = None,
    finish: Finish | None = None,
) -> Path:
    """Translates one picture file and writes the result to ``out``.

    An animation goes frame by frame, all in one style: that of its first frame, if none is given. ``finish``: see
    ``launch.inference.pictures.save_frames``.
    """
    channels = module.batch_spec().channels or 3

    def convert(picture: Tensor) -> Tensor:
        nonlocal style
        if style is None:
            style = module.translation_styles(*_prepared(module, picture, direction, size))
        return translate(module, picture, direction, size=size, style=style)

    return convert_file(file, out, convert, channels=channels, finish=finish)


@torch.no_grad()
def style_of(module: ImageFamily, picture: Picture, direction: str | None) -> Tensor:
    """The style [1, D] of a picture of a direction's target domain.

    Raises:
        ValueError: the family takes no styles, or does not translate this way.
    """
    module.require("translate_in_style")
    images = as_picture(picture, channels=module.batch_spec().channels or 3)
    return module.style_of(images.to(module.device), module.known_direction(direction))
