"""Compute of a training step: measured on this machine, and how it is spread over a family's updates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import lightning as L
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from launch.callbacks.ema import EMA
from launch.planning.footprint import MOST_STEPS, example_batch, ready
from launch.planning.speed import Update
from launch.runs.machine import processor
from lightning_modules.core.family import Batch, ImageFamily, Losses

#: Steps that are not timed: allocators and caches fill up, kernels are chosen.
WARM_UP = 3
LEAST_STEPS = 5


def updates(module: ImageFamily, count: int) -> list[Update]:
    """The updates of a step, each with its share of the floating-point operations of all.

    Runs the family's own step on tensors that have shapes but no memory, until each network has been updated.

    Args:
        module: on the CPU, without a trainer; its weights stay as they are.
        count: images of a rank's micro-batch.
    """
    found: dict[tuple[str, ...], list[float]] = {}
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def update(names: str | Sequence[str], losses: Callable[[Batch], Losses], batch: Batch) -> None:
        together = (names,) if isinstance(names, str) else tuple(names)
        with module.freezing_others(*together):
            with _Operations() as forward:
                loss = losses(batch)["loss"]
            with _Operations() as backward:
                loss.backward()
        module.zero_grad()
        entry = found.setdefault(together, [0.0, 0.0, 0.0])
        for place, number in enumerate((1, forward.total, backward.total)):
            entry[place] += number

    with ready(module, update), fake:
        batch = example_batch(module, count)
        while not set(module.trained_networks) <= {n for names in found for n in names}:
            if module.steps_done == MOST_STEPS:
                break
            module.step(batch)
            module.steps_done += 1
        steps = module.steps_done
    whole = sum(forward + backward for _, forward, backward in found.values()) or 1
    return [
        Update(names, times / steps, forward / whole, backward / whole)
        for names, (times, forward, backward) in found.items()
    ]


def seconds_of_step(
    module: ImageFamily, images: int, *, precision: Any = "32-true", accelerator: str = "auto", seconds: float = 10.0
) -> float:
    """Median seconds of a training step on one device of this machine, averages included; changes the weights.

    Args:
        module: the family, its frozen helpers loaded.
        images: of a rank's batch, micro-batches together.
        precision: of the Trainer.
        accelerator: of the Trainer.
        seconds: to measure for; ``LEAST_STEPS`` steps are made in any case.
    """
    steps = _Steps(example_batch(module, images), seconds)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=1,
        callbacks=[EMA()],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, steps)
    return median(steps.seconds[WARM_UP:])


def device_name() -> str:
    """The device that ``seconds_of_step`` measures on by default."""
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{processor()}, {torch.get_num_threads()} threads"
    )


class _Operations(TorchDispatchMode):
    """Dispatch mode that counts floating-point operations of convolutions and matrix products.

    torch's ``FlopCounterMode`` hooks every module, with which ``autograd.grad`` of a penalty fails.
    """

    total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _Steps:
    """The Trainer's loader: one batch again and again, and the seconds of each step."""

    def __init__(self, batch: Batch, seconds: float) -> None:
        self.seconds: list[float] = []
        self._batch, self._limit = batch, seconds

    def __iter__(self) -> Iterator[Batch]:
        begin = time.perf_counter()
        while len(self.seconds) < WARM_UP + LEAST_STEPS or time.perf_counter() - begin < self._limit:
            start = time.perf_counter()
            yield self._batch
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - start)
