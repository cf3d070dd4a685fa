"""Hooks that nobody has overridden are left out, and all others are called as Lightning calls them."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.trainer import call
from torch.utils.data import DataLoader

from launch.training import idle_hooks
from launch.training.idle_hooks import IDLE, leave_out_idle_hooks
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.networks.vae import AutoencoderOptions
from tests.trainers import bare_trainer

MOVED = f"Lightning {L.__version__} has moved {{}}: see launch/training/idle_hooks.py"
HOOKS = sorted(name for name in vars(L.Callback) if name.startswith("on_") and "checkpoint" not in name)


@pytest.fixture
def as_lightning() -> Iterator[None]:
    """Calls of hooks as Lightning has them, whatever ran in this process before."""
    before = call._call_callback_hooks, call._call_lightning_module_hook
    call._call_callback_hooks = idle_hooks._callbacks_as_lightning
    call._call_lightning_module_hook = idle_hooks._module_as_lightning
    yield
    call._call_callback_hooks, call._call_lightning_module_hook = before


class Module(VAE):
    """Notes its own hooks."""

    def __init__(self) -> None:
        super().__init__(resolution=32, channels=1, latent_dim=4, autoencoder=AutoencoderOptions(4))
        self.heard: list[tuple[str, str | None]] = []

    def on_after_backward(self) -> None:
        self.heard.append(("module.on_after_backward", self._current_fx_name))


def noting(base: type[L.Callback], names: list[str], heard: list[tuple[str, str | None]], label: str) -> L.Callback:
    """A callback that notes these hooks."""

    def hook(name: str) -> Any:
        def note(self: L.Callback, trainer: L.Trainer, module: Any, *_: object, **__: object) -> None:
            heard.append((f"{label}.{name}", module._current_fx_name))

        return note

    return type("Noting", (base,), {name: hook(name) for name in names})()


def heard_in(path: Path, **options: Any) -> list[tuple[str, str | None]]:
    module = Module()
    callbacks = [
        noting(Checkpoint, HOOKS[::2], module.heard, "saving"),
        noting(L.Callback, HOOKS, module.heard, "all"),
        noting(L.Callback, ["on_train_batch_end"], module.heard, "end"),
        L.Callback(),
    ]
    batches = [{"image": torch.rand(2, 1, 32, 32) * 2 - 1}] * 3
    trainer = bare_trainer(path, callbacks=callbacks, enable_checkpointing=True, **options)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module.heard


def test_lightning_still_is_where_we_look() -> None:
    for name in ("_call_callback_hooks", "_call_lightning_module_hook"):
        assert hasattr(call, name), MOVED.format(f"lightning.pytorch.trainer.call.{name}")
    assert hasattr(training_epoch_loop, "is_param_in_hook_signature"), MOVED.format("is_param_in_hook_signature")
    for name in IDLE:
        done = {instruction.opname for instruction in dis.get_instructions(getattr(L.LightningModule, name))}
        nothing = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
        assert done <= nothing, MOVED.format(f"{name}, which does something now")


def test_every_overridden_hook_is_called_as_before(as_lightning: None, tmp_path: Path) -> None:
    before = heard_in(tmp_path)
    leave_out_idle_hooks()
    assert heard_in(tmp_path) == before
    heard = {name for name, _ in before}
    assert heard >= {"module.on_after_backward", "end.on_train_batch_end", "all.on_before_backward"}


def test_a_profiler_sees_every_hook(as_lightning: None, tmp_path: Path) -> None:
    leave_out_idle_hooks()
    profiler = SimpleProfiler()
    heard_in(tmp_path, profiler=profiler)
    assert "[Callback]Callback.on_train_batch_end" in profiler.recorded_durations
