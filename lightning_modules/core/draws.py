"""The noise of a training step: which numbers each draw of each update has, on each rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gesso.common.randomness import mix_key
from lightning_modules.core.noise import Rows, normals, uniforms

#: ``normals`` or ``uniforms``.
Kind = Callable[[Sequence[int], Rows, int, torch.device], Tensor]


@dataclass(frozen=True)
class Steps:
    """The training step that draws, and those after it.

    Args:
        seed_at: the seed of a step, given the images seen before it.
        images_seen: before this step.
        images: of a step, over all ranks.
    """

    seed_at: Callable[[int], int]
    images_seen: int
    images: int


class NoiseAhead:
    """Keeps the draws of the next steps, made in one go with the present one.

    A draw is some fifty operator calls, however many numbers it has: where these are few, the calls are what it costs.
    A draw that was asked for in the step before, too, is made for several steps at once.
    """

    #: Number of steps, and bound of the numbers that are kept of one draw.
    STEPS, NUMBERS = 32, 1 << 20

    def __init__(self) -> None:
        self._made: dict[Draw, _Made] = {}

    def take(self, draw: Draw, steps: Steps) -> Tensor:
        """The numbers [count, *shape] of a draw in the present one of ``steps``."""
        made = self._made.get(draw)
        place = made.place(steps) if made is not None else -1
        if made is not None and 0 <= place < len(made.values):
            value, made.values[place] = made.values[place], None
            if value is not None:
                return value
        again = made is not None and place == len(made.values)
        count = max(1, min(self.STEPS, self.NUMBERS // max(1, draw.numbers))) if again else 1
        if made is None and len(self._made) >= 256:
            # Shapes that change all the time.
            self._made.clear()
        seeds = [steps.seed_at(steps.images_seen + number * steps.images) for number in range(count)]
        first, *others = draw.make(seeds)
        self._made[draw] = _Made(steps.images_seen, steps.images, [None, *others])
        return first


@dataclass(frozen=True)
class Draw:
    """One draw of a step.

    Args:
        kind: ``normals`` or ``uniforms``.
        update, number: index of the update in the step, and of the draw in the update.
        rows: of the global batch.
        shape: of a row.
        device: of the numbers.
    """

    kind: Kind
    update: int
    number: int
    rows: Rows
    shape: tuple[int, ...]
    device: torch.device

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return self.rows.count * math.prod(self.shape)

    def make(self, seeds: Sequence[int]) -> Sequence[Tensor]:
        """The numbers [count, *shape] for each step's seed."""
        keys = [mix_key(seed, self.update, self.number) for seed in seeds]
        values = self.kind(keys, self.rows, math.prod(self.shape), self.device)
        return values.view(len(seeds), self.rows.count, *self.shape).unbind()


@dataclass
class _Made:
    """A draw's numbers for a step and those after it; None: given out."""

    images_seen: int
    images: int
    values: list[Tensor | None]

    def place(self, steps: Steps) -> int:
        number, rest = divmod(steps.images_seen - self.images_seen, max(1, self.images))
        return -1 if rest or steps.images != self.images else number


@dataclass
class NoiseRows:
    """The noise of one micro-batch of one update.

    Args:
        steps: the training step; an int is its seed.
        update: index of the update in the step.
        part, parts: index of the micro-batch, and their number.
        rank, ranks: index of the process, and their number.
        draws: number of draws so far.
        ahead: keeps draws of the next steps; None: each is made when it is asked for.
    """

    steps: Steps | int
    update: int
    part: int
    parts: int
    rank: int = 0
    ranks: int = 1
    draws: int = 0
    ahead: NoiseAhead | None = None

    def normal(self, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal rows [count, *shape], float32, of this part on this rank."""
        return self._next(normals, count, shape, device)

    def uniform(self, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Rows [count, *shape] of this part on this rank, float32, uniform in [0, 1)."""
        return self._next(uniforms, count, shape, device)

    def _next(self, kind: Kind, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        self.draws += 1
        # The global batch is dealt to the ranks one image at a time, and each rank's images are cut into micro-batches.
        rows = Rows(count, self.rank + self.ranks * self.part * count, self.ranks)
        draw = Draw(kind, self.update, self.draws - 1, rows, shape, device)
        if isinstance(self.steps, int):
            return draw.make([self.steps])[0]
        if self.ahead is None:
            return draw.make([self.steps.seed_at(self.steps.images_seen)])[0]
        return self.ahead.take(draw, self.steps)
