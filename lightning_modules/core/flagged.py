"""Optimizers that skip a step by a flag on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim import Optimizer


class FlaggedOptimizer(Optimizer):
    """Base of optimizers whose step does nothing where ``found_inf`` is 1, without the host reading that.

    ``found_inf`` and ``grad_scale`` are set from outside, as on torch's fused optimizers.
    """

    #: ``skipped`` steps need no look at the device's flag by the host: see ``core.stability.skip_if``.
    _step_supports_amp_scaling = True

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    @abstractmethod
    def _step_group(self, group: dict[str, Any]) -> None:  # type: ignore[explicit-any] # as torch's param_groups
        """Steps the parameters of one group."""
