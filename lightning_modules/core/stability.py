"""Non-finite losses and gradients: skips the step, counts it, stops after too many; and loss scales for fp16.

Nothing here synchronises with a GPU: flags and counters stay on the device until they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict


class NonFiniteError(RuntimeError):
    """A network's losses or gradients were not finite in too many steps in a row."""


def poisoned(loss: Tensor) -> Tensor:
    """``loss`` if it is finite, else NaN: every gradient is then NaN, on every rank once they are averaged."""
    return loss * torch.where(torch.isfinite(loss), 1.0, torch.nan)


def is_nonfinite(parameters: list[Tensor], *, clip_norm: float | None = None) -> Tensor:
    """1 if any gradient is not finite, else 0, on the device; clips the gradients to ``clip_norm``."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return (~torch.isfinite(norm)).float()


def spread_nonfinite(networks: Sequence[Sequence[Tensor]]) -> None:
    """Makes all of the networks skip their step if a gradient of any of them is not finite, by a NaN in each.

    Args:
        networks: each one's parameters.
    """
    gradients = [[p.grad for p in parameters if p.grad is not None and p.grad.numel()] for parameters in networks]
    norm = torch.nn.utils.get_total_norm([gradient for own in gradients for gradient in own])
    factor = torch.where(torch.isfinite(norm), 1.0, torch.nan)
    for own in gradients:
        if own:
            own[0].mul_(factor)


class Skips:
    """Number of skipped steps of each network: in total, and in a row."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[Tensor, Tensor]] = {}

    def note(self, name: str, skipped: Tensor) -> None:
        """Counts one update of the network ``name``; ``skipped`` is 1 or 0, on the device."""
        total, in_a_row = self._counts.get(name, (torch.zeros_like(skipped), torch.zeros_like(skipped)))
        self._counts[name] = (total.to(skipped) + skipped, (in_a_row.to(skipped) + 1) * skipped)

    def totals(self) -> dict[str, int]:
        """Skipped steps since training began, by network; synchronises with the device."""
        return {name: int(total.item()) for name, (total, _) in self._counts.items()}

    def load(self, totals: dict[str, int]) -> None:
        """Continues counting from ``totals``."""
        self._counts = {name: (torch.tensor(float(total)), torch.tensor(0.0)) for name, total in totals.items()}

    def check(self, limit: int, *, step: int, images: int) -> None:
        """Checks that no network skips all its steps; synchronises with the device.

        Args:
            limit: number of skipped steps in a row that is too many.
            step, images: present step and images seen, for the message.

        Raises:
            NonFiniteError: a network's last ``limit`` or more steps were all skipped; names it.
        """
        for name, (_, in_a_row) in self._counts.items():
            count = int(in_a_row.item())
            if count >= limit:
                raise NonFiniteError(
                    f"{name}: loss or gradients were not finite in the last {count} of its updates, up to step "
                    f"{step:,} ({images:,} images); none of these changed a weight. Lower its learning rate, clip its "
                    "gradient (gradient_clip_norm), or train in bf16-mixed or 32-true"
                )


class BufferGuard:
    """Undoes a bad step's changes of batch norm's buffers, without synchronising with the device.

    Args:
        buffers: to watch; those of floating point are restored.
    """

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self.buffers = [buffer for buffer in buffers if buffer.is_floating_point() and buffer.numel()]
        self._before = self._flat()

    def _flat(self) -> Tensor | None:
        return torch.cat([buffer.detach().reshape(-1) for buffer in self.buffers]) if self.buffers else None

    def undo_if(self, bad: Tensor) -> None:
        """Restores the buffers' initial values if ``bad`` is 1."""
        now = self._flat()
        if now is None or self._before is None:
            return
        kept = torch.where(bad.to(now.device) > 0, self._before, now)
        pieces = kept.split([buffer.numel() for buffer in self.buffers])
        values = [piece.view(buffer.shape) for piece, buffer in zip(pieces, self.buffers, strict=True)]
        torch._foreach_copy_(self.buffers, values)


def skip_if(bad: Tensor, optimizer: Optimizer) -> None:
    """Makes the optimizer's next step do nothing if ``bad`` is 1."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # A fused optimizer reads the flag on the device.
        optimizer.found_inf = bad  # type: ignore[attr-defined]
    elif bad.item():
        # Other optimizers skip parameters without gradients.
        optimizer.zero_grad(set_to_none=True)


class Stepping(Protocol):
    """The part of a family that its loss scales need."""

    @property
    def stepping(self) -> str:
        """The network whose optimizer steps."""
        ...

    @property
    def device(self) -> torch.device: ...


class LossScalePerNetwork(MixedPrecision):
    """Precision plugin for 16-mixed with a loss scale per network: an overflow of one must not lower the other's.

    Args:
        module: the family.
        device: ``cuda`` or ``cpu``.
    """

    def __init__(self, module: Stepping, device: str) -> None:
        self._module = module
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        super().__init__("16-mixed", device)

    @property
    def scaler(self) -> torch.amp.GradScaler:
        return self._of(self._module.stepping)

    @scaler.setter
    def scaler(self, value: torch.amp.GradScaler | None) -> None:
        """Ignored: Lightning's own scaler, one for all networks, is not used."""

    def _of(self, name: str) -> torch.amp.GradScaler:
        if name not in self.scalers:
            self.scalers[name] = torch.amp.GradScaler(device=self.device)
        return self.scalers[name]

    def share(self, names: Sequence[str]) -> None:
        """Sets the loss scale of networks that share one backward to the smallest of theirs, without synchronising."""
        scalers = [self._of(name) for name in names]
        one = torch.ones((), device=self._module.device)
        smallest = torch.stack([scaler.scale(one) for scaler in scalers]).amin()
        for scaler in scalers:
            scaler.update(smallest)

    def state_dict(self) -> dict[str, StateDict]:
        return {name: scaler.state_dict() for name, scaler in self.scalers.items()}

    def load_state_dict(self, state_dict: dict[str, StateDict]) -> None:
        for name, state in state_dict.items():
            self.scalers[name] = torch.amp.GradScaler(device=self.device)
            self.scalers[name].load_state_dict(state)


def advance(scaler: torch.amp.GradScaler, *, overflow: bool) -> None:
    """Like ``GradScaler.update()``, when a DeepSpeed engine reports the overflow."""
    state = scaler.state_dict()
    state["_growth_tracker"] = 0 if overflow else state["_growth_tracker"] + 1
    if overflow:
        state["scale"] *= state["backoff_factor"]
    elif state["_growth_tracker"] == state["growth_interval"]:
        state["scale"] *= state["growth_factor"]
        state["_growth_tracker"] = 0
    scaler.load_state_dict(state)
