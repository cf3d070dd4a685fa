"""Gradient checkpointing that is exact for modules with buffers."""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, *inputs: Any, enabled: bool) -> Any:
    """``module(*inputs)``; when ``enabled``, activations are recomputed in the backward pass instead of kept.

    Exact for modules that change their buffers in forward (batch norm's statistics, spectral norm's vectors): the
    recomputation starts from the buffers as they were, and its own changes to them are dropped.
    """
    return _checkpoint(module, *inputs) if enabled and torch.is_grad_enabled() else module(*inputs)


# The compiler takes no contexts of our own in a checkpoint; so it compiles what lies inside and between instead.
@torch.compiler.disable(recursive=False)
def _checkpoint(module: nn.Module, *inputs: Any) -> Any:
    return checkpoint(
        module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _BuffersAsTheyAre(module))
    )


class _BuffersAsTheyAre:
    """Context manager, reusable: a module has the buffers that it had when this was made."""

    def __init__(self, module: nn.Module) -> None:
        self.owned = [(owner, name) for owner in module.modules() for name, _ in owner.named_buffers(recurse=False)]
        self.then = [getattr(owner, name).clone() for owner, name in self.owned]
        self.now: list[Tensor] = []

    def __enter__(self) -> None:
        self.now = [getattr(owner, name) for owner, name in self.owned]
        # Clones, since forward writes into them and a second backward must find them untouched.
        self._put([buffer.clone() for buffer in self.then])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put(self.now)

    def _put(self, buffers: list[Tensor]) -> None:
        for (owner, name), buffer in zip(self.owned, buffers, strict=True):
            setattr(owner, name, buffer)
