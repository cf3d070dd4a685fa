"""Published weights for the families that need them."""

from __future__ import annotations

from datamodules.assets import fetch
from lightning_modules.base import ImageFamily


def provide_weights(module: ImageFamily) -> None:
    """Fetches what a family needs, if need be, and hands it over."""
    for name in module.published_weights():
        module.take_weights(name, fetch(name))
