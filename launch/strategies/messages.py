"""Tensors that travel between ranks together: few large messages in place of many small ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_modules.core.tensor_lists import grouped

#: Tensors travel in buckets of about this many bytes: large enough for bandwidth, small enough for memory.
BUCKET_BYTES = 64 * 2**20


def in_parts(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Cuts a list into consecutive ranges whose sizes add up to ``most`` at most; a larger entry is alone.

    >>> list(in_parts([2, 2, 1, 9, 1], 4))
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    start, held = 0, 0
    for number, size in enumerate(sizes):
        if number > start and held + size > most:
            yield range(start, number)
            start, held = number, 0
        held += size
    if sizes:
        yield range(start, len(sizes))


class Message:
    """Tensors of one device and any dtypes that are broadcast together."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        # The longest numbers first: then each one lies where its dtype allows it.
        self._order = sorted(self.tensors, key=lambda tensor: -tensor.element_size())
        sizes = [tensor.nbytes for tensor in self._order]
        self._bytes = torch.empty(sum(sizes), dtype=torch.uint8, device=self._order[0].device)
        pieces = zip(self._order, self._bytes.split(sizes), strict=True)
        self._views = [piece.view(tensor.dtype).view(tensor.shape) for tensor, piece in pieces]

    @torch.no_grad()
    def broadcast(self) -> None:
        """Overwrites the tensors with the first rank's."""
        torch._foreach_copy_(self._views, self._order)
        dist.broadcast(self._bytes, src=0)
        if dist.get_rank() != 0:
            torch._foreach_copy_(self._order, self._views)


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype and device, ``BUCKET_BYTES`` at a time."""
    for group in grouped(tensors):
        for part in in_parts([tensor.nbytes for tensor in group], BUCKET_BYTES):
            yield group[part.start : part.stop]
