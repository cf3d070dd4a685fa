"""Ctrl-C, SIGTERM and SLURM's warnings: finish the step, save, leave together."""

from __future__ import annotations

import contextlib

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.lookup import find
from launch.training.lightning_internals import data_of, silence_signals
from launch.training.signals import Interrupted, act_on_ctrl_c, agreed, agreed_a_step_ago, listening, settle
from lightning_modules.core.family import Batch


class Interruption(Checkpoint):
    """Ends training when any rank was asked to stop: at the end of a step, in an evaluation, or before the first step.

    An evaluation that was broken off is done again when training goes on. (A ``Checkpoint`` callback, so that Lightning
    calls it after all others.)
    """

    def __init__(self) -> None:
        self._listening = contextlib.ExitStack()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            # The command line listens already; a Trainer in a user's own script does so from here on.
            self._listening.enter_context(listening())
            silence_signals(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        act_on_ctrl_c(True)
        if number := agreed(trainer):
            raise Interrupted(number)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        # Training may go on for a step more; what it has then done is saved.
        if (number := agreed_a_step_ago(trainer)) and not trainer.should_stop:
            self._leave(trainer, number)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # A pass ends with a batch of which not every rank has a part: nothing can be agreed on there.
        whole = batch["position"] % data_of(trainer).global_batch_size == 0
        if trainer.state.fn == "fit" and whole and agreed(trainer):
            raise StopIteration

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and (number := agreed(trainer)):
            self._leave(trainer, number)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        settle(trainer)

    def _leave(self, trainer: L.Trainer, number: int) -> None:
        settle(trainer)
        checkpoints = find(trainer, Checkpoints)
        if checkpoints is not None:
            checkpoints.save_and_wait(trainer)
        raise Interrupted(number)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        act_on_ctrl_c(False)
        self._listening.close()
