"""What everything that stylises pictures has in common, whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Stylizer(Protocol):
    """A method of style transfer, ready to use: export, evaluation and the command line know nothing else of it."""

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        weights: Sequence[float] | None = None,
        masks: Tensor | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        """The content picture in one or several styles.

        Args:
            content: [1, 3, H, W] in [-1, 1], of any size.
            styles: pictures [1, 3, H', W'] in [-1, 1], each of a size of its own.
            weights: how much of each style; None: equally much. They are brought to a sum of 1.
            masks: [K, H, W] in [0, 1]: where each of the K styles goes; None: everywhere.
            alpha: from 0 (the content) to 1 (all of the style).

        Returns:
            [1, 3, H, W] in [-1, 1].

        Raises:
            ValueError: weights or masks do not fit styles and content.
        """
        ...


def shares(
    content: Tensor, styles: Sequence[Tensor], weights: Sequence[float] | None, masks: Tensor | None, alpha: float
) -> Tensor:
    """How much of each style each place of the content gets: [K, H, W], with sums of 1.

    Raises:
        ValueError: see ``Stylizer.stylize``.
    """
    height, width = content.shape[2:]
    if not styles:
        raise ValueError("no style: name one picture or more")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it goes from 0 (the content) to 1 (all of the style)")
    if weights is None:
        weights = [1.0] * len(styles)
    if len(weights) != len(styles) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"{len(weights)} weights for {len(styles)} styles: give each one of 0 or more, not all 0")
    if masks is None:
        masks = torch.ones(len(styles), height, width, device=content.device)
    elif masks.shape != (len(styles), height, width):
        count, rows, columns = masks.shape
        raise ValueError(
            f"{count} masks of {columns} x {rows} pixels for {len(styles)} styles and a picture of {width} x {height}: "
            "give a mask of the picture's size for each style"
        )
    weighted = masks.float() * torch.tensor(weights, device=masks.device).view(-1, 1, 1)
    # A place that no mask covers gets all styles, as if there were no masks.
    bare = weighted.sum(0, keepdim=True) <= 1e-6
    weighted = torch.where(bare, torch.tensor(weights, device=masks.device).view(-1, 1, 1), weighted)
    return weighted / weighted.sum(0, keepdim=True)


def resize_shares(share: Tensor, size: tuple[int, int]) -> Tensor:
    """``shares`` at a feature map's size: [K, h, w]; averages, so that sums stay 1."""
    return F.interpolate(share[None], size, mode="area")[0]
