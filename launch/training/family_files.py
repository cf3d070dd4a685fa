"""Files that a family needs besides training data: published weights, and pictures such as those of fixed styles."""

from __future__ import annotations

from pathlib import Path

from datamodules.assets.fetching import fetch
from launch.inference.pictures import read_picture
from lightning_modules.core.family import ImageFamily


def load_all(module: ImageFamily) -> None:
    """Loads all that a family needs before it is trained: see ``load_weights`` and ``load_pictures``."""
    load_weights(module)
    load_pictures(module)


def load_weights(module: ImageFamily) -> None:
    """Loads the published weights that a family needs, downloading those that are not in the cache."""
    for name in module.published_weights():
        module.take_weights(name, fetch(name))


def load_pictures(module: ImageFamily) -> None:
    """Loads the pictures that a family is trained with; a trained family does not need them.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is no picture.
    """
    for option, files in module.pictures().items():
        module.take_pictures(option, [read_picture(Path(file)) for file in files])
