"""SIGINT, SIGTERM and SIGUSR1 set a flag, for the whole life of a training's process.

Training steps act on the flag, the handlers do not: at any moment each rank is at another place, one in a barrier,
another in an all-reduce, and saving from there deadlocks. SLURM sends SIGUSR1 ahead of a time limit
(``sbatch --signal``), and SIGTERM at preemption. Imports no torch by itself, so that it can listen before that is
loaded.
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
    from torch import Tensor
    from torch.distributed import Work

#: Exit code of a job that has saved and is to be queued again; EX_TEMPFAIL of sysexits.h.
EXIT_REQUEUE = 75
HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_received = 0
_steps_act = False
#: Process groups on the host, so that the agreement makes no GPU wait.
_groups: WeakKeyDictionary[Strategy, Any] = WeakKeyDictionary()
#: What was asked of all ranks a step ago.
_asked: WeakKeyDictionary[Strategy, tuple[Tensor, Work]] = WeakKeyDictionary()


class Interrupted(Exception):
    """Training was asked to stop, and has saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Context manager: signals set the flag. Ctrl-C raises at once before training begins, and the second time.

    Does nothing in any thread but the main one.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outermost = signal.getsignal(signal.SIGTERM) is not _note
    previous = {number: signal.signal(number, _note) for number in HANDLED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if outermost:
            _received = 0
            act_on_ctrl_c(False)


@contextlib.contextmanager
def ignoring_ctrl_c() -> Iterator[None]:
    """Context manager: Ctrl-C is ignored. Does nothing in any thread but the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def act_on_ctrl_c(by_steps: bool) -> None:
    """Sets whether training steps check for Ctrl-C; if not, it raises KeyboardInterrupt at once."""
    global _steps_act
    _steps_act = by_steps


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    # SLURM may send a signal several times; only a second Ctrl-C asks for more than the first.
    if number == signal.SIGINT and (_received == signal.SIGINT or not _steps_act):
        raise KeyboardInterrupt
    _received = number


def agreed(trainer: L.Trainer) -> int:
    """The signal that any rank has received, 0 for none; a collective: all ranks must call it at the same place."""
    if trainer.world_size == 1:
        return _received
    number, work = _ask(trainer)
    work.wait()
    return int(number)


def agreed_a_step_ago(trainer: L.Trainer) -> int:
    """Like ``agreed``, as of the last call: a step need not wait for the other ranks' answers. 0 at the first call."""
    if trainer.world_size == 1:
        return _received
    before = _asked.pop(trainer.strategy, None)
    _asked[trainer.strategy] = _ask(trainer)
    if before is None:
        return 0
    number, work = before
    work.wait()
    return int(number)


def settle(trainer: L.Trainer) -> None:
    """Waits for the answers that ``agreed_a_step_ago`` has asked for, before the ranks part."""
    if (before := _asked.pop(trainer.strategy, None)) is not None:
        before[1].wait()


def _ask(trainer: L.Trainer) -> tuple[Tensor, Work]:
    import torch
    import torch.distributed as dist

    if trainer.strategy not in _groups:
        _groups[trainer.strategy] = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    number = torch.tensor(int(_received))
    work = dist.all_reduce(number, dist.ReduceOp.MAX, group=_groups[trainer.strategy], async_op=True)
    assert work is not None
    return number, work
