"""Ctrl-C and SIGTERM: finish the step, save, say how to go on."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import find


class Interrupted(Exception):
    """Training was asked to stop, and has saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Interruption(Checkpoint):
    """The handler only sets a flag; all ranks agree on it at the end of a step, save, and leave together.

    Saving inside a handler deadlocks: each rank is somewhere else, one in a barrier, another in an all-reduce.
    A second signal interrupts at once. (A ``Checkpoint`` callback, so that Lightning calls it after all others.)
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._previous = {number: signal.signal(number, self._note) for number in self.signals}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            raise KeyboardInterrupt
        self._received = number

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.strategy.reduce_boolean_decision(bool(self._received), all=False) or trainer.should_stop:
            return
        checkpoints = find(trainer, Checkpoints)
        if checkpoints is not None:
            checkpoints.save_and_wait(trainer)
        raise Interrupted(self._received or signal.SIGTERM)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
