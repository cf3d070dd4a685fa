"""What families need beside data: published weights, and pictures of fixed styles."""

from __future__ import annotations

from pathlib import Path

from datamodules.assets.fetching import fetch
from launch.inference.pictures import read_picture
from lightning_modules.core.family import ImageFamily
from lightning_modules.kinds.stylizing import StyleFamily


def provide_weights(module: ImageFamily) -> None:
    """Fetches the published weights that a family needs, if need be, and hands them over."""
    for name in module.published_weights():
        module.take_weights(name, fetch(name))


def provide_styles(module: ImageFamily) -> None:
    """Reads the pictures in whose styles the family is trained; using it afterwards needs none.

    Raises:
        FileNotFoundError, ValueError: one is missing, or no picture.
    """
    if isinstance(module, StyleFamily):
        module.take_styles([read_picture(Path(file)) for file in module.style_files()])
