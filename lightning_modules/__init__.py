"""What is trained: the model families, by name.

A family is one file here, one recipe in ``launch/configs`` and one test.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_modules.core.family import ImageFamily

#: Family name -> the module that holds it.
FAMILIES = {
    "AdaIN": "lightning_modules.style.adain",
    "DCGAN": "lightning_modules.gan.dcgan",
    "FastStyle": "lightning_modules.style.fast_style",
    "VAE": "lightning_modules.autoencoder.vae",
}


def family(name: str) -> type[ImageFamily]:
    """The family's class, imported only now; a ValueError lists the families there are."""
    if name not in FAMILIES:
        raise ValueError(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    return getattr(import_module(FAMILIES[name]), name)
