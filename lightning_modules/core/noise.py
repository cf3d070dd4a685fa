"""Random numbers that are pure functions of where training stands: (seed, images seen, rank)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gesso.common.randomness import mix_seed


def seed_everything(seed: int) -> None:
    """Seeds the generators that any code may draw from: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - what other people's code draws from
    torch.manual_seed(seed)


@dataclass
class NoiseRows:
    """The noise of one network's update over the global batch, and which part of it a micro-batch is.

    Args:
        seed: of the training step.
        update: number of the update in the step.
        part, parts: number of the micro-batch, and how many there are.
    """

    seed: int
    update: int
    part: int
    parts: int
    draws: int = 0

    def draw(
        self,
        kind: Callable[..., Tensor],
        count: int,
        shape: tuple[int, ...],
        device: torch.device,
        *,
        rank: int,
        ranks: int,
    ) -> Tensor:
        """Rows [count, *shape] of this part on this rank; the whole is the same for any number of parts and ranks.

        Args:
            kind: ``torch.randn`` or ``torch.rand``.
        """
        generator = torch.Generator(device).manual_seed(mix_seed(self.seed, self.update, self.draws))
        self.draws += 1
        size = (count * self.parts * ranks, *shape)
        noise = kind(size, generator=generator, device=device, dtype=torch.float32)
        return noise[rank::ranks][self.part * count : (self.part + 1) * count]
