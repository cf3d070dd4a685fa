"""What families need beside data: published weights, and pictures such as those of fixed styles."""

from __future__ import annotations

from pathlib import Path

from datamodules.assets.fetching import fetch
from launch.inference.pictures import read_picture
from lightning_modules.core.family import ImageFamily


def provide_weights(module: ImageFamily) -> None:
    """Fetches the published weights that a family needs, if need be, and hands them over."""
    for name in module.published_weights():
        module.take_weights(name, fetch(name))


def provide_pictures(module: ImageFamily) -> None:
    """Reads the pictures that a family is trained with; using it afterwards needs none.

    Raises:
        FileNotFoundError, ValueError: one is missing, or no picture.
    """
    for option, files in module.pictures().items():
        module.take_pictures(option, [read_picture(Path(file)) for file in files])
