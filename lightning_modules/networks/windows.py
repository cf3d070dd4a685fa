"""Windows of tokens (Swin, Liu et al. 2021): attention whose cost grows with the picture, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Windows:
    """Square windows over a map of tokens: each token sees those of its own window.

    With a shift the windows begin elsewhere, so that neighbours which one layer parts meet in the next; those at the
    borders are smaller. That is Swin's cyclic shift with its masks (Liu et al. 2021, arXiv:2103.14030), by padding. A
    side that fits into one window is not shifted.

    Args:
        height, width: of the map, in tokens.
        window: side of a window, in tokens.
        shift: of where the first whole window begins, down and right, in tokens; less than ``window``.
        device: of the tokens.

    Example:
        >>> windows = Windows(4, 6, window=4, shift=2, device=torch.device("cpu"))
        >>> windows.split(torch.zeros(1, 24, 8)).shape  # columns 0-1 and 2-5
        torch.Size([2, 16, 8])
        >>> windows.mask.sum((1, 2, 3)).tolist()
        [8, 16]
    """

    def __init__(self, height: int, width: int, *, window: int, shift: int = 0, device: torch.device) -> None:
        self.height, self.width, self.window = height, width, window
        self._before = [window - shift if shift and side > window else 0 for side in (height, width)]
        self._after = [-(side + before) % window for side, before in zip((height, width), self._before, strict=True)]
        padded = any(self._before + self._after)
        there = torch.ones(1, height * width, 1, dtype=torch.bool, device=device)
        #: Which of a window's tokens are there, bool ``[windows, 1, 1, window²]``; None: all of them.
        self.mask: Tensor | None = self.split(there)[:, None, None, :, 0] if padded else None

    @property
    def count(self) -> int:
        """Number of windows of one map."""
        rows, columns = self._grid()
        return rows * columns

    def split(self, tokens: Tensor) -> Tensor:
        """``[N, height * width, D]``, row by row, to ``[N * count, window², D]``, with zeros where no token is."""
        x = tokens.unflatten(1, (self.height, self.width))
        (top, left), (bottom, right) = self._before, self._after
        x = F.pad(x, (0, 0, left, right, top, bottom))
        rows, columns = self._grid()
        x = x.unflatten(2, (columns, self.window)).unflatten(1, (rows, self.window))
        return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)

    def merge(self, tokens: Tensor) -> Tensor:
        """The inverse of ``split``."""
        rows, columns = self._grid()
        x = tokens.unflatten(1, (self.window, self.window)).unflatten(0, (-1, rows, columns))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        top, left = self._before
        return x[:, top : top + self.height, left : left + self.width].flatten(1, 2)

    def _grid(self) -> tuple[int, int]:
        sides = zip((self.height, self.width), self._before, self._after, strict=True)
        rows, columns = (sum(parts) // self.window for parts in sides)
        return rows, columns
