"""SIGINT, SIGTERM and SIGUSR1 set a flag, from the first moment of a training's process to the last.

Steps act on it, not handlers: at any moment each rank is somewhere else, one in a barrier, another in an all-reduce,
and saving from there deadlocks. SLURM sends SIGUSR1 ahead of a time limit (``sbatch --signal``), and SIGTERM at
preemption. Imports no torch by itself, so that it can listen before that is loaded.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.strategies import Strategy

#: Exit code of a job that has saved and wants to go on; EX_TEMPFAIL of sysexits.h.
COME_AGAIN = 75
HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_received = 0
_steps_act = False
#: Ranks that train on GPUs agree on the host: a number that waits there makes no GPU wait.
_groups: WeakKeyDictionary[Strategy, Any] = WeakKeyDictionary()


class Interrupted(Exception):
    """Training was asked to stop, and has saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, signals are noted. Ctrl-C interrupts at once before training begins, and when it comes a second time.

    In any thread but the first, nothing changes.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outermost = signal.getsignal(signal.SIGTERM) is not _note
    previous = {number: signal.signal(number, _note) for number in HEEDED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if outermost:
            _received = 0
            act_on_ctrl_c(False)


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C does nothing. In any thread but the first, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def act_on_ctrl_c(by_steps: bool) -> None:
    """Says whether training's steps look for Ctrl-C, so that it need not interrupt at once."""
    global _steps_act
    _steps_act = by_steps


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    # SLURM may say it several times, in several ways; only a person who presses Ctrl-C again means more by it.
    if number == signal.SIGINT and (_received == signal.SIGINT or not _steps_act):
        raise KeyboardInterrupt
    _received = number


def agreed(trainer: L.Trainer) -> int:
    """The signal that any rank has received, 0 for none; every rank must ask at the same place."""
    if trainer.world_size == 1:
        return _received
    import torch
    import torch.distributed as dist

    if trainer.strategy not in _groups:
        _groups[trainer.strategy] = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    number = torch.tensor(int(_received))
    dist.all_reduce(number, dist.ReduceOp.MAX, group=_groups[trainer.strategy])
    return int(number)
