"""Families that see pictures by VGG19 with published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_modules.core.family import ImageFamily
from lightning_modules.core.frozen import Frozen
from lightning_modules.networks.vgg import VGG19


class PerceivingFamily(ImageFamily):
    """A family with a frozen VGG19, which is in no checkpoint.

    Args:
        options: those of ``ImageFamily``.
    """

    def __init__(self, **options: Any) -> None:  # type: ignore[explicit-any] # as ImageFamily declares them
        super().__init__(**options)
        self._encoder: Frozen[VGG19] | None = None

    def published_weights(self) -> tuple[str, ...]:
        return ("vgg19_normalized",)

    def take_weights(self, name: str, file: Path) -> None:
        self._encoder = Frozen(VGG19(file)).to(self.device)

    @property
    def encoder(self) -> VGG19:
        """VGG19, on the module's device."""
        if self._encoder is None:
            raise RuntimeError(f"{type(self).__name__} has no encoder yet: take_weights comes first")
        return self._encoder.network
