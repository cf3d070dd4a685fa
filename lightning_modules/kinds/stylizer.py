"""Interface of all methods of style transfer."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

Found = TypeVar("Found")


@dataclass(frozen=True)
class Style:
    """The target style of a picture: one or several style pictures, and their weights.

    Args:
        pictures: [1, 3, H', W'] in [-1, 1], of any sizes; none for a network that was trained for fixed styles.
        weights: weight of each style, normalised to a sum of 1; None: equal weights.
        masks: [K, H, W] in [0, 1]: where in the content each of the K styles goes; None: everywhere. ``placed``
            puts the content back where no style goes.
        alpha: from 0 (the content) to 1 (all of the style).
        regions: of each style picture, [H', W'] in [0, 1]: where its style is taken from; None: from all of it.
        memory: where ``of_each`` keeps what a method finds out of these pictures and regions, for the next frame of a
            film or picture of a folder; None: nothing is kept.
    """

    pictures: Sequence[Tensor] = ()
    weights: Sequence[float] | None = None
    masks: Tensor | None = None
    alpha: float = 1.0
    regions: Sequence[Tensor] | None = None
    memory: dict[Hashable, object] | None = field(default=None, repr=False, compare=False)

    def of_each(self, find: Callable[[int, Tensor], Found], *key: Hashable) -> list[Found]:
        """What a method finds out of each style picture alone: computed once, if there is a ``memory``.

        Args:
            find: computes it, of a style's number and picture.
            key: all that it depends on besides pictures, regions and method, such as the tiles' side.
        """
        memory = {} if self.memory is None else self.memory
        for number, picture in enumerate(self.pictures):
            if (number, *key) not in memory:
                memory[number, *key] = find(number, picture)
        return [cast(Found, memory[number, *key]) for number in range(len(self.pictures))]

    def shares(self, content: Tensor, count: int, *, by_region: bool = False) -> Tensor:
        """How much of each of ``count`` styles each place of the content gets: [K, H, W], with sums of 1.

        Without masks it is the same everywhere: [K, 1, 1].

        Args:
            content: [1, 3, H, W].
            count: K.
            by_region: whether the method takes styles from ``regions`` of their pictures.

        Raises:
            ValueError: weights or masks do not fit styles and content, or there are regions and the method knows none.
        """
        if self.regions is not None and not by_region:
            raise ValueError("this method takes the style of whole pictures: leave out the masks of the styles")
        if not count:
            raise ValueError("no style: name one picture or more")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; it goes from 0 (the content) to 1 (all of the style)")
        weights = [1.0] * count if self.weights is None else self.weights
        if len(weights) != count:
            raise ValueError(f"{len(weights)} weights for {count} styles: give each one")
        check_shares(weights)
        weight = torch.tensor(weights, dtype=torch.float32, device=content.device).view(-1, 1, 1)
        if self.masks is None:
            return weight / weight.sum()
        height, width = content.shape[2:]
        if self.masks.shape != (count, height, width):
            masks, rows, columns = self.masks.shape
            raise ValueError(
                f"{masks} masks of {columns} x {rows} pixels for {count} styles and a picture of {width} x {height}: "
                "give a mask of the picture's size for each style"
            )
        weighted = self.masks.float() * weight
        # Features need a style at every place: one that no mask covers gets all, and ``placed`` takes it back.
        weighted = torch.where(weighted.sum(0, keepdim=True) <= 1e-6, weight, weighted)
        return weighted / weighted.sum(0, keepdim=True)

    def cover(self, content: Tensor, count: int) -> Tensor:
        """How much of each place of the content the masks give to styles: [1, H, W] in [0, 1].

        Without masks it is 1 everywhere: [1, 1, 1]. The mask of a style of weight 0 does not count.

        Args:
            content: [1, 3, H, W].
            count: K, the number of styles.

        Raises:
            ValueError: no mask is white anywhere.
        """
        if self.masks is None:
            return content.new_ones(1, 1, 1)
        weights = torch.tensor([1.0] * count if self.weights is None else self.weights)
        cover = self.masks[weights.to(self.masks.device) > 0].to(content).sum(0, keepdim=True).clamp(max=1)
        if not cover.any():
            raise ValueError("the masks are black all over: a style goes where its mask is white")
        return cover

    def placed(self, picture: Tensor, content: Tensor, count: int) -> Tensor:
        """The stylised picture where masks are white, and the content, to the bit, where none is.

        Args:
            picture, content: [1, 3, H, W] in [-1, 1].
            count: K, the number of styles.
        """
        return picture if self.masks is None else content.lerp(picture.to(content), self.cover(content, count))

    def region(self, number: int) -> Tensor:
        """Where in its picture a style is taken from: [1, H', W'], or [1, 1, 1] for all of it.

        Raises:
            ValueError: the regions do not fit the pictures, or one is empty.
        """
        if self.regions is None:
            return torch.ones(1, 1, 1, device=self.pictures[number].device)
        if len(self.regions) != len(self.pictures):
            raise ValueError(f"{len(self.regions)} masks of styles for {len(self.pictures)} styles: give each one")
        region, (height, width) = self.regions[number], self.pictures[number].shape[2:]
        if region.shape != (height, width):
            raise ValueError(
                f"the mask of style {number + 1} has {region.shape[1]} x {region.shape[0]} pixels, "
                f"its picture {width} x {height}: make them equal"
            )
        if not region.any():
            raise ValueError(f"the mask of style {number + 1} is black all over: white is what counts")
        return region[None].to(self.pictures[number].device)


def check_shares(weights: Sequence[float]) -> None:
    """Raises a ValueError where weights of styles cannot be brought to a sum of 1."""
    if not all(math.isfinite(share) and share >= 0 for share in weights) or sum(weights) <= 0:
        listed = ", ".join(f"{share:g}" for share in weights)
        raise ValueError(f"weights {listed}: each is a number of 0 or more, and not all are 0")


def drawn_by_alpha(
    content: Tensor, alpha: float, wanted: Tensor, own: Callable[[], Tensor], draw: Callable[[Tensor], Tensor]
) -> Tensor:
    """The picture drawn of what a style makes of the content, and of the content's own, mixed by ``alpha``.

    What drawing loses of the content is put back as far as ``alpha`` is from 1: with 0 the picture is the content.

    Args:
        content: [1, 3, H, W] in [-1, 1].
        alpha: from 0 (the content) to 1 (all of the style).
        wanted: what the style makes of the content, in the form that ``draw`` takes.
        own: computes what the content makes of itself, in the same form; only asked for if it is needed.
        draw: makes the picture [1, 3, H, W].
    """
    if alpha == 1:
        return draw(wanted).clamp(-1, 1)
    mine = own()
    lost = content - draw(mine)
    return (draw(alpha * wanted + (1 - alpha) * mine) + (1 - alpha) * lost).clamp(-1, 1)


class Stylizer(Protocol):
    """A method of style transfer, ready to use: export, evaluation and the command line know nothing else of it."""

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """The content picture in one or several styles.

        Args:
            content: [1, 3, H, W] in [-1, 1], of any size.
            style: the style, or a mixture of several.
            tile: work on squares of about so many pixels a side, one after the other, so that memory does not grow with
                the picture; the result is the same. None: the whole picture at once.

        Returns:
            [1, 3, H, W] in [-1, 1].

        Raises:
            ValueError: weights or masks do not fit styles and content.
        """
        ...


def resize_shares(share: Tensor, size: tuple[int, int]) -> Tensor:
    """``Style.shares`` at a feature map's size: [K, h, w]; averages, so that sums stay 1. [K, 1, 1] stay."""
    return share if share.shape[1:] == (1, 1) else F.interpolate(share[None], size, mode="area")[0]
