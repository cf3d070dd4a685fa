"""Non-finite losses and gradients: skips the step, counts it, stops after too many; and loss scales for fp16.

Nothing here synchronises with a GPU: flags and counters stay on the device until they are read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from lightning_modules.core.tensor_lists import grouped, same


class NonFiniteError(RuntimeError):
    """A network's losses or gradients were not finite in too many steps in a row."""


@torch.no_grad()
def finite_or_nan(value: Tensor, finite: float = 1.0) -> Tensor:
    """The number ``finite`` where ``value`` is finite, else NaN; of its dtype, without a gradient.

    As the gradient of a loss it makes every gradient behind it NaN, on every rank once these are averaged.
    """
    return torch.addcmul(_constant(finite, value.device), value, _constant(0.0, value.device)).to(value.dtype)


@functools.lru_cache(maxsize=64)
def _constant(number: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), number, dtype=torch.float32, device=device)


def mark_nonfinite(bad: Tensor, parameters: Sequence[Tensor], *, clip_norm: float | None = None) -> None:
    """Sets ``bad`` to 1 if any gradient is not finite, and clips the gradients to ``clip_norm``.

    Args:
        bad: 0, on the parameters' device.
        parameters: of one network.
        clip_norm: L2 norm of all gradients together to which they are scaled down; None: never.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    if clip_norm is None and all(gradient.dtype == torch.float32 for gradient in gradients):
        # One call, which torch's own GradScaler makes too: it multiplies by 1, and writes the flag.
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, bad, _constant(1.0, bad.device))
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    bad.copy_(~torch.isfinite(norm))


def spread_nonfinite(networks: Sequence[Sequence[Tensor]]) -> None:
    """Makes all of the networks skip their step if a gradient of any of them is not finite, by a NaN in each.

    Args:
        networks: each one's parameters.
    """
    gradients = [[p.grad for p in parameters if p.grad is not None and p.grad.numel()] for parameters in networks]
    factor = finite_or_nan(torch.nn.utils.get_total_norm([gradient for own in gradients for gradient in own]))
    for own in gradients:
        if own:
            own[0].mul_(factor)


class Skips:
    """Number of skipped updates of each network: in total, and in a row.

    An update that may be skipped has a flag on the device, which is read with all others, long after.
    """

    #: Flags made at once.
    CHUNK = 64

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._in_a_row: dict[str, int] = {}
        #: Flags that were given out and not read yet, with their networks' names in order.
        self._unread: list[tuple[Tensor, list[str]]] = []
        self._free: list[Tensor] = []

    def flag(self, name: str, device: torch.device) -> Tensor:
        """The flag of an update of the network ``name``: 0, float32, on the device; 1 is written if it is skipped."""
        if not self._free:
            # In bf16-true, bf16 is the default.
            flags = torch.zeros(self.CHUNK, dtype=torch.float32, device=device)
            self._free = list(flags.unbind())[::-1]
            self._unread.append((flags, []))
        self._unread[-1][1].append(name)
        return self._free.pop()

    def note(self, name: str, skipped: float) -> None:
        """Counts one update of the network ``name``, of which the host knows; ``skipped`` is 1 or 0."""
        self._totals[name] = self._totals.get(name, 0) + int(skipped)
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if skipped else 0

    def _read(self) -> None:
        unread, self._unread, self._free = self._unread, [], []
        for flags, names in unread:
            for name, skipped in zip(names, flags.tolist(), strict=False):
                self.note(name, skipped)

    def totals(self) -> dict[str, int]:
        """Skipped updates since training began, by network; synchronises with the device."""
        self._read()
        return dict(self._totals)

    def load(self, totals: dict[str, int]) -> None:
        """Continues counting from ``totals``."""
        self._unread, self._free = [], []
        self._totals, self._in_a_row = dict(totals), dict.fromkeys(totals, 0)

    def check(self, limit: int, *, step: int, images: int) -> None:
        """Checks that no network skips all its updates; synchronises with the device.

        Args:
            limit: number of skipped updates in a row that is too many.
            step, images: present step and images seen, for the message.

        Raises:
            NonFiniteError: a network's last ``limit`` or more updates were all skipped; names it.
        """
        self._read()
        for name, count in self._in_a_row.items():
            if count >= limit:
                raise NonFiniteError(
                    f"{name}: loss or gradients were not finite in the last {count} of its updates, up to step "
                    f"{step:,} ({images:,} images); none of these changed a weight. Lower its learning rate, clip its "
                    "gradient (gradient_clip_norm), or train in bf16-mixed or 32-true"
                )


class BufferGuard:
    """Undoes a bad step's changes of batch norm's buffers, without synchronising with the device.

    Memory for the copies is made once, and again only where a network has replaced a buffer.
    """

    def __init__(self) -> None:
        self._buffers: Sequence[Tensor] = []
        self._copies: list[_Copy] = []

    def remember(self, buffers: Sequence[Tensor]) -> None:
        """Copies the buffers of floating point; ``undo_if`` restores them."""
        if not same(buffers, self._buffers):
            self._buffers = buffers
            watched = [buffer for buffer in buffers if buffer.is_floating_point() and buffer.numel()]
            self._copies = [_Copy(of_one) for of_one in grouped(watched)]
        for copy in self._copies:
            copy.remember()

    @torch.no_grad()
    def undo_if(self, flags: Sequence[Tensor]) -> None:
        """Restores the remembered values if any of the flags, fp32 on the device, is 1."""
        if self._copies and flags:
            bad = functools.reduce(torch.maximum, flags) > 0
            for copy in self._copies:
                copy.undo_if(bad)


class _Copy:
    """Buffers of one dtype and device, before and after a step."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers
        sizes = [buffer.numel() for buffer in buffers]
        self.before, self.after = (buffers[0].new_empty(sum(sizes)) for _ in range(2))
        self.before_parts, self.after_parts = (
            [part.view(buffer.shape) for part, buffer in zip(flat.split(sizes), buffers, strict=True)]
            for flat in (self.before, self.after)
        )

    def remember(self) -> None:
        torch._foreach_copy_(self.before_parts, self.buffers)

    def undo_if(self, bad: Tensor) -> None:
        torch._foreach_copy_(self.after_parts, self.buffers)
        torch.where(bad.to(self.after.device), self.before, self.after, out=self.after)
        torch._foreach_copy_(self.buffers, self.after_parts)


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
