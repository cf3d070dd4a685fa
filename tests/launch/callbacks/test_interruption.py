"""A signal is honoured at the end of a step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.ema import EMA
from launch.callbacks.interruption import Interrupted, Interruption
from launch.checkpoints import layout
from tests.launch.callbacks.small_training import BATCH, train


def test_a_signal_ends_training_after_a_whole_step_that_is_saved(tmp_path: Path) -> None:
    class CtrlC(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if pl_module.images_seen == 3 * BATCH:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT"):
        train(tmp_path, 1.0, CtrlC(), EMA(), Checkpoints(), Interruption())
    assert signal.getsignal(signal.SIGINT) is before
    checkpoint = layout.read(tmp_path / "checkpoints" / "last")
    assert checkpoint["gesso"]["images_seen"] == checkpoint["Images"]["position"] == 4 * BATCH
