"""Lightning without the hooks that do nothing.

For each hook of a step Lightning calls every callback inside a profiler's context, whether the callback has something
to do there or not: some fifty calls a step, a quarter of what a small network's step costs the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

#: Hooks of a module that do nothing unless it has its own.
IDLE = frozenset(
    (
        "on_train_batch_start",
        "on_train_batch_end",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
        "on_before_zero_grad",
    )
)


@functools.cache
def _has_parameter(function: Callable[..., object], name: str, explicit: bool, least: int | None) -> bool:
    return is_param_in_hook_signature(function, name, explicit=explicit, min_args=least)


def _is_param_in_hook_signature(
    hook_fx: Callable[..., object], param: str, explicit: bool = False, min_args: int | None = None
) -> bool:
    """Lightning inspects the signature of ``training_step`` in each step; a class's method stays what it is."""
    function = getattr(hook_fx, "__func__", None)
    if function is None:
        return is_param_in_hook_signature(hook_fx, param, explicit=explicit, min_args=min_args)
    return _has_parameter(function, param, explicit, min_args)


_callbacks_as_lightning = call._call_callback_hooks
_module_as_lightning = call._call_lightning_module_hook


def leave_out_idle_hooks() -> None:
    """Makes Lightning pass over hooks that nobody has overridden, in this process; all others are called as before.

    Where a profiler is asked for, Lightning calls everything, so that it finds its usual lines.
    """
    call._call_callback_hooks = _call_callback_hooks
    call._call_lightning_module_hook = _call_module_hook
    training_epoch_loop.is_param_in_hook_signature = _is_param_in_hook_signature


def _call_callback_hooks(
    trainer: L.Trainer,
    hook_name: str,
    *args: object,
    monitoring_callbacks: bool | None = None,
    **kwargs: object,
) -> None:
    inside: Any = trainer
    if not isinstance(inside.profiler, PassThroughProfiler):
        _callbacks_as_lightning(trainer, hook_name, *args, monitoring_callbacks=monitoring_callbacks, **kwargs)
        return
    nothing = getattr(L.Callback, hook_name, None)
    hooks = ((callback, getattr(callback, hook_name)) for callback in inside.callbacks)
    callbacks = [(callback, hook) for callback, hook in hooks if getattr(hook, "__func__", None) is not nothing]
    if not callbacks:
        return
    module = inside.lightning_module
    if module is not None:
        before, module._current_fx_name = module._current_fx_name, hook_name
    for callback, hook in callbacks:
        monitors = isinstance(callback, EarlyStopping | Checkpoint)
        if callable(hook) and monitoring_callbacks in (None, monitors):
            hook(trainer, inside.lightning_module, *args, **kwargs)
    if module is not None:
        module._current_fx_name = before


def _call_module_hook(
    trainer: L.Trainer,
    hook_name: str,
    *args: object,
    pl_module: L.LightningModule | None = None,
    **kwargs: object,
) -> object:
    inside: Any = trainer
    if hook_name in IDLE and isinstance(inside.profiler, PassThroughProfiler):
        hook = getattr(pl_module or inside.lightning_module, hook_name)
        if getattr(hook, "__func__", None) is getattr(L.LightningModule, hook_name):
            return None
    return _module_as_lightning(trainer, hook_name, *args, pl_module=pl_module, **kwargs)
