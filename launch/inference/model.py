"""A trained family behind a few methods: pictures in, pictures out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import torch
from PIL.Image import Image
from torch import Tensor

from gesso.common.arguments import whole
from gesso.common.ranges import SEEDS, Range
from launch.inference.loading import load_family
from launch.inference.pictures import Picture, as_picture, image_grid, save_picture
from launch.inference.stylization import Method, Request, stylize_picture, stylizer
from launch.inference.translation import style_of, translate
from launch.training.hardware import best_device
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.family import ImageFamily
from lightning_modules.kinds.stylizer import Stylizer


class Model:
    """A trained family, in eval mode.

    Args:
        module: the family.
        path: where its weights come from.
        images_seen: on how many images it was trained.
        average: whether the weights are the moving average.

    Example:
        >>> model = Model.load("runs/mnist-dcgan-20261128")  # doctest: +SKIP
        >>> model.generate(16, seed=0).shape  # doctest: +SKIP
        torch.Size([16, 1, 32, 32])
    """

    def __init__(self, module: ImageFamily, *, path: str, images_seen: int, average: bool) -> None:
        self.module = module
        self.path = path
        self.images_seen = images_seen
        self.average = average

    @classmethod
    def load(cls, source: str | os.PathLike[str], *, average: bool = True, device: str = "auto") -> Model:
        """See ``gesso.load``."""
        module, origin = load_family(source, average=average, device=best_device(device))
        return cls(module, **origin)

    def __repr__(self) -> str:
        weights = "averaged" if self.average else "raw"
        return f"{type(self.module).__name__}({weights} weights at {self.images_seen / 1000:g} kimg, {self.path})"

    @torch.no_grad()
    def generate(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: SupportsIndex | Sequence[int] | Tensor | None = None,
        batch_size: int = 64,
        **sampling: object,
    ) -> Tensor:
        """Samples 0 to ``num`` - 1 of the infinite sequence ``seed``.

        Args:
            num: how many.
            seed: which sequence; a sample depends on the seed and its own number alone.
            labels: one class for all, or one for each; None: as the family chooses.
            batch_size: samples made at a time.
            sampling: of a diffusion model: ``sampler``, ``steps``, ``guidance`` ... in place of its own.

        Returns:
            float32 [num, C, H, W] in [-1, 1], on the CPU.

        Raises:
            ValueError: the family makes no samples, or has no such class; or an argument is no such number.
        """
        num, batch_size = whole(num, "num", Range(1)), whole(batch_size, "batch_size", Range(1))
        seed = whole(seed, "seed", SEEDS)
        self.module.require("generate")
        chosen = None if labels is None else self._labels(labels, num)
        try:
            before = self.module.sample_with(sampling) if sampling else {}
        except CannotDo as error:
            raise CannotDo(f"generate knows no {', '.join(sampling)} here: {error}") from error
        try:
            made = [
                self.module.generate(index, seed=seed, labels=None if chosen is None else chosen[index]).float().cpu()
                for index in torch.arange(num).split(batch_size)
            ]
        finally:
            if before:
                self.module.sample_with(before)
        return torch.cat(made)

    @torch.no_grad()
    def stylize(
        self,
        content: Picture,
        style: Picture | Sequence[Picture] = (),
        *,
        weights: Sequence[float] | None = None,
        alpha: float = 1.0,
        size: int | None = None,
    ) -> Tensor:
        """A picture in the style of others: [1, 3, H, W] in [-1, 1], on the CPU.

        Args:
            content: a file, a PIL image, or a tensor [3, H, W] or [1, 3, H, W] in [-1, 1].
            style: one such picture or several; none for a run that was trained for styles of its own.
            weights: how much of each style; None: equally much.
            alpha: from 0 (the content) to 1.
            size: longer side of the result in pixels; None: the content's own.

        Raises:
            ValueError: the family does not stylise.
        """
        self.module.require("stylize")
        return _stylized(self.module, content, style, self.module.device, weights=weights, alpha=alpha, size=size)

    @torch.no_grad()
    def translate(
        self,
        images: Picture,
        direction: str | None = None,
        *,
        size: int | None = None,
        style: Picture | None = None,
    ) -> Tensor:
        """Pictures of one domain as pictures of the other: [N, C, H, W] in [-1, 1], on the CPU.

        Args:
            images: a file, a PIL image, or a tensor [N, C, H, W] in [-1, 1].
            direction: which way, ``b-to-a``; None: the family's main one.
            size: longer side of the result in pixels; None: the picture's own.
            style: a picture of the other domain in whose style; None: the family's choice.

        Raises:
            ValueError: the family does not translate, not this way, not pictures of so many channels, or in no styles.
        """
        chosen = None if style is None else style_of(self.module, style, direction)
        return translate(self.module, images, direction, size=size, style=chosen)

    def save_grid(self, path: str | os.PathLike[str], num: int = 64, *, seed: int = 0) -> Path:
        """Writes ``num`` samples, side by side, into a PNG file."""
        return save_picture(image_grid(self.generate(num, seed=seed)), Path(path))

    def _labels(self, labels: SupportsIndex | Sequence[int] | Tensor, num: int) -> Tensor:
        try:
            chosen = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"labels is {labels!r}; give one class by its number, or {num} of them") from error
        if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
            raise ValueError(f"labels are of {str(chosen.dtype).removeprefix('torch.')}; classes are whole numbers")
        chosen = chosen.long().expand(num) if chosen.dim() == 0 else chosen.long()
        classes = self.module.batch_spec().num_classes
        if chosen.shape != (num,):
            raise ValueError(f"labels has the shape {list(chosen.shape)}: give one class, or {num} of them")
        if not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
            raise ValueError(
                f"labels {int(chosen.min())} to {int(chosen.max())}: the model has {classes or 'no'} classes"
            )
        return chosen


@torch.no_grad()
def stylize_with(
    method: Method,
    content: Picture,
    style: Picture | Sequence[Picture],
    *,
    weights: Sequence[float] | None,
    alpha: float,
    size: int | None,
    steps: int,
    seed: int,
    device: str,
) -> Tensor:
    """See ``gesso.stylize``."""
    where = best_device(device)
    steps, seed = whole(steps, "steps", Range(1)), whole(seed, "seed", SEEDS)
    # Weights that are read in inference mode could not be differentiated through.
    with torch.inference_mode(False):
        published = stylizer(method, where, steps=steps, seed=seed)
    return _stylized(published, content, style, where, weights=weights, alpha=alpha, size=size)


def _stylized(
    method: Stylizer,
    content: Picture,
    style: Picture | Sequence[Picture],
    device: torch.device,
    *,
    weights: Sequence[float] | None,
    alpha: float,
    size: int | None,
) -> Tensor:
    if size is not None:
        size = whole(size, "size", Range(1))
    single = isinstance(style, str | os.PathLike | Tensor | Image)
    styles: Sequence[Picture] = (style,) if single else style  # type: ignore[assignment]
    request = Request(styles=[_single(one) for one in styles], weights=weights, alpha=alpha, size=size)
    return stylize_picture(_single(content).to(device), None, method, request).float().cpu()


def _single(picture: Picture) -> Tensor:
    found = as_picture(picture)
    if len(found) != 1:
        raise ValueError(f"{len(found)} pictures in one tensor: stylise them one after the other")
    return found
