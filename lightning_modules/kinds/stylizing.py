"""Families that put pictures into the style of others, and are measured by the features of VGG19."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.core.family import Batch, ImageFamily, Losses, Preview
from lightning_modules.kinds.stylizer import Style, Stylizer
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.sizes import square


class StyleFamily(ImageFamily):
    """A ``Stylizer`` that is trained.

    Args:
        options: those of ``ImageFamily``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Frozen and published: neither trained, nor saved in every checkpoint. (In a list, torch does not see it.)
        self._encoders: list[VGG19] = []

    @abstractmethod
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``."""

    @property
    def own_styles(self) -> tuple[str, ...]:
        """Names of the styles that the network was trained for; empty: it takes any picture's."""
        return ()

    def style_files(self) -> tuple[str, ...]:
        """Files of the pictures in whose styles the network is trained; empty: the batches bring styles."""
        return ()

    def take_styles(self, pictures: Sequence[Tensor]) -> None:
        """Hands over the ``style_files``, [1, 3, H, W] in [-1, 1] each, before training or validation."""

    def published_weights(self) -> tuple[str, ...]:
        return ("vgg19_normalized",)

    def take_weights(self, name: str, file: Path) -> None:
        self._encoders = [VGG19(file)]

    @property
    def encoder(self) -> VGG19:
        """VGG19, on the module's device."""
        if not self._encoders:
            raise RuntimeError(f"{type(self).__name__} has no encoder yet: take_weights comes first")
        (encoder,) = self._encoders
        return encoder if encoder.normalize.weight.device == self.device else encoder.to(self.device)

    def check_data(self, *, channels: int, resolution: int | None, num_classes: int, unlabelled: int = 0) -> None:
        if channels != 3:
            raise ValueError(f"the data has grey images, {type(self).__name__} needs RGB: set --data.channels 3")
        super().check_data(channels=channels, resolution=resolution, num_classes=num_classes, unlabelled=unlabelled)

    def held_out_losses(self, batch: Batch) -> Losses:
        return self.losses(batch)

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The losses of a step, each as it is and weighted."""

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Four photographs (left) in up to six styles (on top)."""
        contents = held_out["image"][:4]
        styles = self.styles_of(held_out)[:6]
        return {"samples": sheet(self, list(contents.split(1)), styles, contents.shape[2])}

    def styles_of(self, batch: Batch) -> list[tuple[Tensor, Style]]:
        """Pictures [1, 3, H, W] that stand for styles, and these: the batch's own, or those that it was trained for."""
        return [(picture, Style([picture])) for picture in batch["style"].split(1)]


def sheet(stylizer: Stylizer, contents: Sequence[Tensor], styles: Sequence[tuple[Tensor, Style]], side: int) -> Preview:
    """Each content (left) in each style (on top), as squares of ``side`` pixels."""
    white = contents[0].new_ones(1, 3, side, side)
    cells = [white, *(square(picture, side) for picture, _ in styles)]
    for content in contents:
        cells += [square(picture, side) for picture in (content, *(stylizer.stylize(content, s) for _, s in styles))]
    return Preview(torch.cat(cells), columns=len(styles) + 1)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Losses:
    """The loss Σ weight * term, with each term beside it as it is and weighted (``NAME_weighted``)."""
    weighted = {f"{name}_weighted": weights[name] * term for name, term in terms.items()}
    return {"loss": torch.stack(list(weighted.values())).sum(), **terms, **weighted}
