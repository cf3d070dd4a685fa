"""All that gesso uses of Lightning beside its documented interface (but ``idle_hooks``), seen with Lightning 2.6.

The tests of this room say in a sentence what a new version has moved.
"""

from __future__ import annotations

from typing import Any

import lightning as L

from datamodules.shards import ShardData


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """The trainer's callbacks, in the order in which they are called; the list itself."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def data_of(trainer: L.Trainer) -> ShardData:
    """The data module that the trainer trains on."""
    data: ShardData = trainer.datamodule  # type: ignore[attr-defined]
    return data


def silence_signals(trainer: L.Trainer) -> None:
    """Keeps Lightning from acting on signals by itself.

    On SLURM it saves and requeues inside the handler, at SIGTERM it broadcasts there, and each step waits for another
    broadcast of whether that has happened.
    """
    inside: Any = trainer
    inside._signal_connector.register_signal_handlers = lambda: None
    inside.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def run_validation(trainer: L.Trainer) -> None:
    """Runs the validation loop now, in the middle of training."""
    trainer.fit_loop.epoch_loop.val_loop.run()
