"""Reusable memory for batches.

The kernel clears every page that it hands out, and gets large blocks back whenever a batch is dropped: at 224 px,
fresh memory for a float32 batch costs more than filling it.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Buffers:
    """Allocates tensors, and reuses their memory when the last tensor that shares it is gone.

    Safe in threads without a lock, since lists append and pop atomically; a lock could be asked for again by the
    garbage collector in the middle of itself.

    Args:
        spare: blocks of one size that are kept for later; more go back to the system.
    """

    def __init__(self, spare: int = 8) -> None:
        self._spare = spare
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor on the CPU with arbitrary contents."""
        size = math.prod(shape) * dtype.itemsize
        try:
            memory = self._free[size].pop()
        except IndexError:
            memory = np.empty(size, np.uint8)  # numpy asks for huge pages, and torch does not
        return lend(memory, self._take_back, memory).view(dtype).view(tuple(shape))

    def _take_back(self, memory: np.ndarray) -> None:
        free = self._free[memory.nbytes]
        if len(free) < self._spare:
            free.append(memory)


def lend(memory: np.ndarray, take_back: Callable[[Any], None], what: Any) -> Tensor:
    """A tensor in ``memory``; ``take_back(what)`` is called when the last tensor or array that shares it is gone."""
    # torch's storage keeps this very object, so it dies with the last tensor.
    lent = memory.view()
    weakref.finalize(lent, take_back, what).atexit = False
    return torch.from_numpy(lent)
