"""Lightning still is where `launch/training/lightning_internals.py` looks for it."""

from __future__ import annotations

import inspect
import signal

import lightning as L
import pytest
from lightning.fabric.utilities import distributed
from lightning.pytorch.strategies import launchers

from launch.training.lightning_internals import callbacks_of, silence_signals

MOVED = f"Lightning {L.__version__} has moved {{}}: see launch/training/lightning_internals.py"


@pytest.fixture
def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def test_callbacks(trainer: L.Trainer) -> None:
    assert hasattr(trainer, "callbacks"), MOVED.format("Trainer.callbacks")
    callback = L.Callback()
    callbacks_of(trainer).append(callback)
    assert trainer.callbacks[-1] is callback  # type: ignore[attr-defined]


def test_signals(trainer: L.Trainer) -> None:
    connector = getattr(trainer, "_signal_connector", None)
    assert hasattr(connector, "register_signal_handlers"), MOVED.format("Trainer._signal_connector")
    loop = trainer.fit_loop.epoch_loop
    assert hasattr(loop, "_broadcast_sigterm_tensor"), MOVED.format("_TrainingEpochLoop._broadcast_sigterm_tensor")
    before = signal.getsignal(signal.SIGTERM)
    silence_signals(trainer)
    connector.register_signal_handlers()  # type: ignore[union-attr]
    assert signal.getsignal(signal.SIGTERM) is before


def test_validation(trainer: L.Trainer) -> None:
    assert callable(getattr(trainer.fit_loop.epoch_loop.val_loop, "run", None)), MOVED.format("the validation loop")


def test_launchers() -> None:
    launcher = getattr(launchers, "_SubprocessScriptLauncher", None)
    assert launcher is not None, MOVED.format("_SubprocessScriptLauncher")
    for name in ("_call_children_scripts", "launch"):
        assert hasattr(launcher, name), MOVED.format(f"_SubprocessScriptLauncher.{name}")
    assert "self.procs" in inspect.getsource(launcher), MOVED.format("_SubprocessScriptLauncher.procs")
    assert hasattr(distributed, "_set_num_threads_if_needed"), MOVED.format("_set_num_threads_if_needed")


def test_strategies() -> None:
    source = inspect.getsource(L.pytorch.strategies.DDPStrategy)
    for name in ("_configure_launcher", "_setup_model", "_layer_sync", "configure_ddp", "block_backward_sync"):
        assert name in source or hasattr(L.pytorch.strategies.DDPStrategy, name), MOVED.format(f"DDPStrategy.{name}")
    wrapped = inspect.getsource(L.pytorch.core.optimizer.LightningOptimizer)
    assert "self._optimizer" in wrapped, MOVED.format("LightningOptimizer._optimizer")
