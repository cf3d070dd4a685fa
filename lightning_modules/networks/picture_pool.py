"""The pool of earlier generated pictures that a discriminator is shown (Shrivastava et al. 2017, arXiv:1612.07828)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PicturePool(nn.Module):
    """Keeps up to ``size`` generated pictures, and swaps new ones for them half of the time.

    Its pictures are a buffer, and so part of every checkpoint. How many there are, and which are swapped, is known
    without asking the device.

    Args:
        size: number of pictures; 0: every picture comes back as it is.
        shape: of a picture, (C, H, W).
    """

    #: Every rank keeps all the pictures, and changes them alike: they need not be sent.
    replicated_buffers = ("pictures",)

    #: [size, C, H, W]; zeros where none has come yet.
    pictures: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("pictures", torch.zeros(size, *shape))

    @torch.no_grad()
    def exchange(self, fakes: Tensor, draws: Sequence[int], *, before: int) -> Tensor:
        """Puts pictures in, one after the other, and returns for each what a discriminator is to see.

        While the pool is filling, each is kept and returned. Afterwards, with probability 1/2, it takes the place of an
        earlier one, which is returned in its stead; otherwise it is returned, and not kept. Pictures with a number that
        is not finite are never kept.

        Args:
            fakes: [N, C, H, W], of all ranks, in the order of the global batch.
            draws: N integers in [0, 2 size): below ``size`` they are the place to swap with, above it none.
            before: number of pictures that were put in before these.

        Returns:
            [N, C, H, W], of the dtype of ``fakes``.
        """
        if not self.size:
            return fakes
        shown: list[Tensor] = []
        #: Places that change, and the numbers of the pictures that they have then.
        kept: dict[int, int] = {}
        for number, draw in enumerate(draws):
            fake = fakes[number]
            filling = before + number < self.size
            place = before + number if filling else draw
            if place < self.size and not filling:
                shown.append(fakes[kept[place]] if place in kept else self.pictures[place].to(fakes.dtype))
            else:
                shown.append(fake)
            if place < self.size:
                kept[place] = number
        answer = torch.stack(shown)
        finite = fakes.isfinite().flatten(1).all(1)
        for place, number in kept.items():
            earlier = self.pictures[place]
            earlier.copy_(torch.where(finite[number], fakes[number].to(earlier.dtype), earlier))
        return answer
