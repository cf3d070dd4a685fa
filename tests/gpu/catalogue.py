"""The parts, the most valuable first: a device may be taken away before the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from tests.gpu.parts import Part, Place
from tests.gpu.rows import Row


def lazily(module: str, function: str) -> Callable[[Place], Iterator[Row]]:
    """A part's function; its module is imported in the part's own process: what it lacks fails this part alone."""

    def run(place: Place) -> Iterator[Row]:
        yield from getattr(import_module(f"tests.gpu.{module}"), function)(place)

    return run


PARTS = (
    Part("train_ddp", 90, lazily("training", "train_ddp")),
    Part("step", 60, lazily("host", "step")),
    Part("cuda_graphs", 90, lazily("host", "graphs"), needs_cuda=True),
    Part("synchronisation", 60, lazily("host", "synchronisation"), needs_cuda=True),
    Part("host_work", 40, lazily("host", "host_work")),
    Part("train_zero", 150, lazily("training", "train_zero")),
    Part("options", 100, lazily("training", "options")),
    Part("frames", 40, lazily("speed", "frames")),
    Part("loader", 60, lazily("speed", "loader")),
    Part("fid", 40, lazily("speed", "fid")),
    Part("zero_speed", 60, lazily("speed", "zero")),
    Part("marked_tests", 60, lazily("marked", "marked_tests"), needs_cuda=True),
)
