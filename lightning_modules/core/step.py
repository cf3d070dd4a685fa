"""Where a training step is, and its noise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from gesso.common.randomness import mix_seed
from lightning_modules.core.abilities import Abilities
from lightning_modules.core.draws import NoiseAhead, NoiseRows, Steps

#: Kinds of attributes in which a module need not look for parameters.
_PLAIN = frozenset((str, int, float, bool, type(None)))


@dataclass
class Now:
    """Where a training step is: an object of its own, since setting an attribute of a module takes a microsecond.

    Args:
        steps: the step, and those after it.
        updates: number of updates so far.
        flags: of these updates, on the device: 1 where one was skipped.
        noise: of the present micro-batch.
        updating: names of the networks that are being updated, by one loss.
        stepping: name of the one of them whose optimizer steps.
        rates: learning rates that optimizers read from memory, by network, while a step is captured.
    """

    steps: Steps
    updates: int = 0
    flags: list[Tensor] = field(default_factory=list)
    noise: NoiseRows = field(default_factory=lambda: NoiseRows(0, 0, 0, 1))
    updating: tuple[str, ...] = ()
    stepping: str = ""
    rates: Mapping[str, Tensor] = field(default_factory=dict)


class Step(Abilities):
    """Base that knows where its training step is, and draws its noise."""

    def __init__(self) -> None:
        super().__init__()
        self._now = Now(Steps(step_seed, 0, 0))
        self._ahead = NoiseAhead()

    @property
    def updating(self) -> tuple[str, ...]:
        """Names of the networks that are being updated, by one loss."""
        return self._now.updating

    @property
    def stepping(self) -> str:
        """Name of the one of them whose optimizer steps; before the first step, of the first of them."""
        return self._now.stepping

    def __setattr__(self, name: str, value: object) -> None:
        # Module's own looks for parameters, modules and buffers in each value; Lightning sets a name for every hook.
        if type(value) in _PLAIN and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)  # type: ignore[arg-type]

    def randn(self, count: int, *shape: int) -> Tensor:
        """Standard normal noise [count, *shape] for this rank's part of the global batch.

        The noise of a global batch is the same for any number of ranks and micro-batches: it is a function of the seed,
        the images seen, the update, the draw and the place in the global batch. A rank computes its own rows alone.
        """
        return self._now.noise.normal(count, shape, self.device)

    def rand(self, count: int, *shape: int) -> Tensor:
        """Like ``randn``, uniform in [0, 1)."""
        return self._now.noise.uniform(count, shape, self.device)

    def randint(self, count: int, below: int) -> list[int]:
        """Integers in [0, below), the same on every rank and in every micro-batch, known without asking the device."""
        seed = self._now.steps.seed_at(self._now.steps.images_seen)
        return [mix_seed(seed, self._now.updates, number) % below for number in range(count)]

    def _noise_of(self, part: int, parts: int) -> NoiseRows:
        rank, ranks = self.global_rank, self.trainer.world_size
        return NoiseRows(self._now.steps, self._now.updates, part, parts, rank=rank, ranks=ranks, ahead=self._ahead)


def step_seed(images_seen: int) -> int:
    """Seed of all randomness of the step that comes after ``images_seen`` images."""
    return mix_seed(int(os.environ.get("PL_GLOBAL_SEED", "0")), images_seen)
