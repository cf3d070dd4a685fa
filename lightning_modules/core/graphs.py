"""Whole training steps as CUDA graphs: the host asks for a step's work once, and then for all of it by one call.

Two steps are of one kind when the host makes the same operator calls in both, with the same numbers. What differs
between them comes in through memory that stays where it is: the batch, the noise, the learning rates. What the host has
to know of a step (its losses, skipped updates) goes out in the same way. All else, and the results, are as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_modules.core.draws import Draw, NoiseAhead, Steps
from lightning_modules.core.host_state import HostState
from lightning_modules.core.loss_means import LossMeans
from lightning_modules.core.recorders import CudaGraph, Recorder
from lightning_modules.core.stability import Skips

if TYPE_CHECKING:
    from lightning_modules.core.abilities import Batch
    from lightning_modules.core.family import ImageFamily

AnyNoise = TypeVar("AnyNoise", bound=NoiseAhead)

#: Steps of a kind that run as usual before one is captured: they make the optimizers' state, constants and lists, and
#: let libraries choose their kernels.
WARM_UP = 3
#: Most kinds of steps that are kept as graphs; others run as usual.
MOST_KINDS = 16
#: Hooks of callbacks that run inside of a step, which a replay does not call.
INNER_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")


class CannotCapture(RuntimeError):
    """A step cannot be captured; the text says why."""


class StepGraphs:
    """Runs a family's steps: some of each kind as usual, all others by replaying one.

    Args:
        module: the family; ``ImageFamily.step_kind`` says of which kind a step is.
        recorder: makes what captures a step; None: a CUDA graph.
    """

    def __init__(self, module: ImageFamily, recorder: Callable[[], Recorder] | None = None) -> None:
        self._module = module
        pool = torch.cuda.graph_pool_handle() if recorder is None else None
        self._recorder = recorder or (lambda: CudaGraph(pool))
        self._kinds: dict[Hashable, _Kind] = {}
        self._gave_up = False
        #: Number of steps that were replayed.
        self.replayed = 0

    def step(self, batch: Batch) -> None:
        """Does what ``ImageFamily.guarded_step`` does."""
        module = self._module
        own = None if self._gave_up else module.step_kind()
        if own is None:
            module.guarded_step(batch)
            return
        kind = self._kind(own, batch)
        if kind.captured is not None:
            kind.captured.run(batch)
            self.replayed += 1
        elif kind.seen <= WARM_UP or sum(other.captured is not None for other in self._kinds.values()) == MOST_KINDS:
            with drawing_from(module, _Listening(module._ahead)) as listening:
                module.guarded_step(batch)
            kind.draws = listening.draws
        else:
            self._capture(kind, batch)

    def _kind(self, own: Hashable, batch: Batch) -> _Kind:
        """The kind of the present step, which the family calls ``own``."""
        module = self._module
        betas = tuple(
            options.betas(module.images_seen, total_kimg=module.total_kimg)
            for options in module.optimization().values()
            if options.final_beta2 is not None
        )
        shapes = tuple((key, value.shape, value.dtype) for key, value in _tensors(batch).items())
        if len(self._kinds) >= 4096:
            # Something changes from step to step: what comes back is counted anew.
            self._kinds = {key: kind for key, kind in self._kinds.items() if kind.captured is not None}
        kind = self._kinds.setdefault((own, betas, shapes), _Kind())
        kind.seen += 1
        return kind

    def _capture(self, kind: _Kind, batch: Batch) -> None:
        module, captured = self._module, CapturedStep(self._module, self._recorder(), kind.draws)
        before = HostState(module)
        try:
            captured.capture(batch)
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            rank_zero_warn(f"trainer.cuda_graphs: a step cannot be captured, training goes on without graphs: {first}")
            self._gave_up = True
            before.restore()
            module.guarded_step(batch)
            return
        kind.captured = captured


@dataclass
class _Kind:
    """What is known of the steps of one kind: how often they came, what noise they draw, the captured one."""

    seen: int = 0
    draws: list[Draw] = field(default_factory=list)
    captured: CapturedStep | None = None


class CapturedStep:
    """One kind of step, captured.

    Args:
        module: the family.
        recorder: of this step alone.
        draws: the noise that such a step draws.
    """

    def __init__(self, module: ImageFamily, recorder: Recorder, draws: Sequence[Draw]) -> None:
        self._module, self._recorder = module, recorder
        self._noise, self._batch = _FixedNoise(draws), dict[str, object]()
        self._rates: dict[str, Tensor] = {}
        self._skips, self._losses = _NotedSkips(), _NotedLosses()
        self._updates = 0
        #: Buffers that the step writes to.
        self._written: list[Tensor] = []

    def capture(self, batch: Batch) -> None:
        """Captures a step, and does it.

        Raises:
            RuntimeError: it cannot be captured; nothing on the device has changed.
        """
        module = self._module
        self._batch = {key: value.clone() if isinstance(value, Tensor) else value for key, value in batch.items()}
        self._noise.fill(module._ahead, module._now.steps)
        # The fused kernels take a rate on a GPU in float32 only.
        dtype = torch.float64 if module.device.type == "cpu" else torch.float32
        rates = module.learning_rates(module.images_seen)
        self._rates = {name: torch.full((), rate, dtype=dtype, device=module.device) for name, rate in rates.items()}
        buffers = list(module.buffers())
        versions = [buffer._version for buffer in buffers]
        before = module.skips, module.loss_means
        module.skips, module.loss_means = self._skips, self._losses
        try:
            with drawing_from(module, self._noise), self._rates_in_place():
                self._recorder.capture(lambda: module.guarded_step(self._batch))
        finally:
            module.skips, module.loss_means = before
        if any(now is not then for now, then in zip(module.buffers(), buffers, strict=True)):
            raise CannotCapture("a network replaces its buffers")
        self._written = [buffer for buffer, then in zip(buffers, versions, strict=True) if buffer._version != then]
        self._updates = module._now.updates
        if not self._recorder.does:
            self._recorder.replay()
        self._tell()

    def run(self, batch: Batch) -> None:
        """Does the step with another batch, and with its own noise and learning rates."""
        module = self._module
        torch._foreach_copy_(list(_tensors(self._batch).values()), list(_tensors(batch).values()))
        self._noise.fill(module._ahead, module._now.steps)
        for name, rate in module.learning_rates(module.images_seen).items():
            self._rates[name].fill_(rate)
            module.set_learning_rate(name, module.optimizer_of(name))
        self._recorder.replay()
        # By their versions, strategies know which buffers have changed.
        torch.autograd.graph.increment_version(self._written)
        module._now.updates = self._updates
        for name, _ in self._skips.given:
            module._now.stepping = name
            # Lightning counts the steps of optimizers.
            module.optimizer_of(name)._on_before_step()
            module.optimizer_of(name)._on_after_step()
        self._tell()

    def _tell(self) -> None:
        """Hands on what the step says of itself."""
        module = self._module
        flags = [module.skips.flag(name, module.device) for name, _ in self._skips.given]
        torch._foreach_copy_(flags, [flag for _, flag in self._skips.given])
        for values in self._losses.added:
            module.loss_means.add(values)

    @contextlib.contextmanager
    def _rates_in_place(self) -> Iterator[None]:
        """Context manager: optimizers read learning rates that change from memory, and may be captured."""
        module = self._module
        groups = [group for name in module.trained_networks for group in module.optimizer_of(name).param_groups]
        before = [{key: group[key] for key in ("capturable",) if key in group} for group in groups]
        module._now.rates = self._rates
        try:
            for group in groups:
                if "capturable" in group:
                    group["capturable"] = True
            yield
        finally:
            for group, own in zip(groups, before, strict=True):
                group.update(own)
            module._now.rates = {}
            for name in self._rates:
                module.set_learning_rate(name, module.optimizer_of(name))


class _Listening(NoiseAhead):
    """Hands on noise, and notes what is drawn."""

    def __init__(self, ahead: NoiseAhead) -> None:
        super().__init__()
        self._ahead = ahead
        self.draws: list[Draw] = []

    def take(self, draw: Draw, steps: Steps) -> Tensor:
        self.draws.append(draw)
        return self._ahead.take(draw, steps)


class _FixedNoise(NoiseAhead):
    """The draws of a captured step: each finds its numbers in the same memory in every step."""

    def __init__(self, draws: Sequence[Draw]) -> None:
        super().__init__()
        self._draws = draws
        self._fixed: dict[Draw, Tensor] = {}

    def fill(self, ahead: NoiseAhead, steps: Steps) -> None:
        """Puts the numbers of the present one of ``steps`` there."""
        values = [ahead.take(draw, steps) for draw in self._draws]
        if not self._fixed:
            self._fixed = {draw: value.clone() for draw, value in zip(self._draws, values, strict=True)}
        elif values:
            torch._foreach_copy_(list(self._fixed.values()), values)

    def take(self, draw: Draw, steps: Steps) -> Tensor:
        if draw not in self._fixed:
            raise CannotCapture("it draws other noise than the step of its kind before it")
        return self._fixed[draw]


class _NotedSkips(Skips):
    """Keeps the flags of a captured step's updates."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, Tensor]] = []

    def flag(self, name: str, device: torch.device) -> Tensor:
        self.given.append((name, torch.zeros((), dtype=torch.float32, device=device)))
        return self.given[-1][1]


class _NotedLosses(LossMeans):
    """Keeps the losses of a captured step."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[dict[str, Tensor]] = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        # Copies: what is only a view may be written over before it is read.
        self.added.append({name: value.detach().clone() for name, value in values.items()})


@contextlib.contextmanager
def drawing_from(module: ImageFamily, noise: AnyNoise) -> Iterator[AnyNoise]:
    """Context manager: the family's step draws its noise from ``noise``."""
    before, module._ahead = module._ahead, noise
    try:
        yield noise
    finally:
        module._ahead = before


def obstacle(module: ImageFamily) -> str | None:
    """Why the steps of a training cannot be captured: one line; None: they can, as far as is known before them."""
    trainer = module.trainer
    if module.device.type != "cuda":
        return f"there are no graphs on a device of kind {module.device.type}"
    if hasattr(trainer.strategy, "skipped_alike"):
        return "under ZeRO, DeepSpeed's engines read from the device in each step"
    if module.compile_networks:
        return "with model.compile, torch captures by itself: set one of both"
    optimizers = [module.optimizer_of(name).optimizer for name in module.trained_networks]
    if slow := [one for one in optimizers if not getattr(one, "_step_supports_amp_scaling", False)]:
        return f"{type(slow[0]).__name__} reads from the device whether its step is skipped"
    callbacks: Sequence[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        for hook in INNER_HOOKS:
            if getattr(type(callback), hook, None) is not getattr(L.Callback, hook):
                return f"{type(callback).__name__}.{hook} is called inside of each step"
    kind = type(module)
    if not kind.__module__.startswith("lightning_modules.") and "step_kind" not in vars(kind):
        # A base class does not know what its heirs decide.
        return f"{kind.__name__} has no step_kind of its own, which says what the host decides in its steps"
    if module.step_kind() is None:
        return f"{module.described()} with these options decides something on the host in each step"
    return None


def _tensors(batch: Mapping[str, object]) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}
