"""Families for style transfer, evaluated with VGG19 features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from lightning_modules.core.abilities import Batch, BatchSpec, Preview
from lightning_modules.core.deployment import Deployable, Layout, Named, Port
from lightning_modules.core.family import Losses
from lightning_modules.kinds.perceiving import PerceivingFamily
from lightning_modules.kinds.stylizer import Style, Stylizer
from lightning_modules.losses.temporal import GRID, TemporalOptions, compound_loss, difference_loss, smooth_flow
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures, TableEvaluator
from lightning_modules.metrics.style import StyleMetrics
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.pictures.flow import warp
from lightning_modules.pictures.sizes import square

#: What a picture is that goes into an exported network or comes out of it.
PICTURE = "float32 [1, 3, H, W] in [-1, 1]"


class StyleFamily(PerceivingFamily):
    """A ``Stylizer`` that is trained.

    Args:
        options: those of ``ImageFamily``.
    """

    #: How pictures are moved in training for video; families without that loss leave it as it is.
    temporal: TemporalOptions = TemporalOptions()
    #: Side in pixels of the tiles in which a large picture is worked on, where nobody says otherwise.
    tile_side: ClassVar[int] = 1024

    @abstractmethod
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``."""

    def batch_spec(self) -> BatchSpec:
        """See ``Abilities``: RGB images, and style pictures unless the network is trained for fixed styles."""
        images = ("image",) if self.pictures() else ("image", "style")
        return replace(super().batch_spec(), images=images, channels=3)

    def check_data(self, *, channels: int, resolution: int | None, num_classes: int, unlabelled: int = 0) -> None:
        if channels != 3:
            raise ValueError(f"the data has grey images, {type(self).__name__} needs RGB: set --data.channels 3")
        super().check_data(channels=channels, resolution=resolution, num_classes=num_classes, unlabelled=unlabelled)

    def held_out_losses(self, batch: Batch) -> Losses:
        return self.losses(batch)

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The losses of a step, each unweighted and weighted."""

    def temporal_loss(self, images: Tensor, pictures: Tensor, render: Callable[[Tensor], Tensor]) -> Tensor:
        """How far the result of each image's next frame, which is made here, is from the moved result.

        Args:
            images: [N, 3, H, W] in [-1, 1].
            pictures: their results.
            render: what turns images into results.
        """
        options, count = self.temporal, len(images)
        shift = options.shift * (2 * self.rand(count, 2) - 1)
        flow = smooth_flow(shift, options.bend * self.randn(count, 2, GRID, GRID), (images.shape[2], images.shape[3]))
        moved = warp(images, flow) + options.noise * self.randn(*images.shape)
        results = render(moved)
        if options.kind == "difference":
            return difference_loss(results - pictures, moved - images)
        return compound_loss(pictures, results, flow)

    def picture_ports(self, layout: Layout, *, multiple: int = 1) -> dict[str, Port]:
        """The inputs of an exported network: a picture and a style picture.

        Args:
            layout: see ``deployable``.
            multiple: where sizes are free, sides are multiples of this, which divides 24.
        """
        height, width = layout.sides(self.batch_spec().resolution or 256, multiple)
        sides = f"; H and W are multiples of {multiple}" if multiple > 1 and layout.dynamic else ""
        # Of other sizes than the content, where sizes are free: equal ones would be taken for one.
        more = 24 if layout.dynamic else 0
        free = {2: "height", 3: "width"}
        style_free = {dim: f"style_{name}" for dim, name in free.items()}
        content, style = torch.zeros(1, 3, height, width), torch.zeros(1, 3, height + more, width + 2 * more)
        return {
            "content": Port(content, f"a picture, {PICTURE}{sides}", free, "image", multiple),
            "style": Port(style, f"a picture in the wanted style, {PICTURE}{sides}", style_free, "style", multiple),
        }

    def deployable_pair(self, network: Named, layout: Layout, *, multiple: int = 1) -> Deployable:
        """What ``deployable`` answers for a network of a picture and a style picture; see ``picture_ports``."""
        return Deployable(
            network,
            self.picture_ports(layout, multiple=multiple),
            "picture",
            f"the stylised picture, {PICTURE}",
            lambda index, seed, pictures: dict(pictures),
            lambda inputs: self.stylize(inputs["content"], Style([inputs["style"]])),
        )

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Grid of four photographs (left) in up to six styles (top)."""
        contents = held_out["image"][:4]
        styles = self.styles_of(held_out)[:6]
        return {"samples": sheet(self, list(contents.split(1)), styles, contents.shape[2])}

    def sheet(self, held_out: Batch) -> Preview:
        """Grid of up to eight held-out photographs (left) in up to eight held-out or fixed styles (top)."""
        contents = held_out["image"][:8]
        return sheet(self, list(contents.split(1)), self.styles_of(held_out)[:8], contents.shape[2])

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares stylised photographs with their contents and styles: LPIPS and others."""
        return None if options.metrics == () else StylizationEvaluator(self, options)

    def styles_of(self, batch: Batch) -> list[tuple[Tensor, Style]]:
        """Styles, each with a picture [1, 3, H, W] to show: those of the batch, or the fixed ones."""
        return [(picture, Style([picture])) for picture in batch["style"].split(1)]


class StylizationEvaluator(TableEvaluator):
    """Evaluates held-out photographs, each in the next of up to 64 held-out styles, or of the fixed ones.

    Args:
        family: the family to evaluate.
        options: of the evaluation.
    """

    examples = 64

    def __init__(self, family: StyleFamily, options: EvaluationOptions) -> None:
        super().__init__("stylization", options, family.described())
        self.family = family
        self.source = Pictures("image", options.split)
        # Each picture has another style.
        self.batch_size = 1
        self._styles: list[tuple[Tensor, Style]] = []
        self._available = 1
        self._style: StyleMetrics | None = None

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        super().load(files, device)
        if self.own:
            lpips = LPIPS(files["vgg16_lpips"]).to(device) if "vgg16_lpips" in files else None
            self._style = StyleMetrics(self.family.encoder, lpips, self.extractor, self.own).to(device)

    def begin(self, examples: Batch, available: int) -> None:
        """See ``Evaluator``."""
        self._styles = self.family.styles_of(examples)
        self._available = available

    def update(self, index: Tensor, batch: Batch | None) -> None:
        """See ``Evaluator``."""
        assert batch is not None
        for number, content in zip(index.tolist(), batch["image"].split(1), strict=True):
            # A photograph that is repeated gets another style.
            picture, style = self._styles[(number + number // self._available) % len(self._styles)]
            stylized = self.family.stylize(content, style)
            if self._style is not None:
                self._style.update(content, stylized, picture)
            if self.foreign:
                self.update_foreign(to_uint8(content), to_uint8(stylized), to_uint8(picture))

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        return {**(self._style.compute() if self._style is not None else {}), **super().compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        if self._style is not None:
            self._style.reset()


def sheet(stylizer: Stylizer, contents: Sequence[Tensor], styles: Sequence[tuple[Tensor, Style]], side: int) -> Preview:
    """Grid of each content (left) in each style (top), as squares of ``side`` pixels."""
    white = contents[0].new_ones(1, 3, side, side)
    cells = [white, *(square(picture, side) for picture, _ in styles)]
    for content in contents:
        cells += [square(picture, side) for picture in (content, *(stylizer.stylize(content, s) for _, s in styles))]
    return Preview(torch.cat(cells), columns=len(styles) + 1)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Losses:
    """The loss Σ weight * term, and each term unweighted (``NAME``) and weighted (``NAME_weighted``), for the log."""
    weighted = {f"{name}_weighted": weights[name] * term for name, term in terms.items()}
    return {"loss": torch.stack(list(weighted.values())).sum(), **terms, **weighted}
