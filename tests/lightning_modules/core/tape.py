"""A CUDA graph's behaviour on a CPU: a list of operator calls that is gone through again, on the same memory.

As with a CUDA graph no Python of the step runs in a replay, numbers that the host gave stay what they were, and tensors
are read and written where they lay, of which their versions say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.core.recorders import Outside, memory_of, tensors_in


class Tape(Outside):
    """Records the operator calls of a step, and makes them again."""

    does = True

    def __init__(self) -> None:
        super().__init__()
        #: Operator, arguments, whether gradients were wanted (by which kernels are chosen), and results.
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], bool, list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        # Views show what is written to their memory anyway.
        given = {memory_of(tensor) for tensor in tensors_in((args, kwargs))}
        fresh = [tensor for tensor in tensors_in(result) if memory_of(tensor) not in given]
        self._calls.append((func, args, kwargs or {}, torch.is_grad_enabled(), fresh))
        return result

    def capture(self, call: Callable[[], None]) -> None:
        """See ``Recorder``."""
        with self:
            call()

    def replay(self) -> None:
        """See ``Recorder``."""
        arguments = [tensor for _, args, kwargs, _, _ in self._calls for tensor in tensors_in((args, kwargs))]
        known = tuple({id(tensor): tensor for tensor in arguments}.values())
        with torch.autograd._unsafe_preserve_version_counter(known):
            self._replay()

    def _replay(self) -> None:
        # Casts have been recorded.
        with torch.autocast("cpu", enabled=False), torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, grad, made in self._calls:
                with torch.set_grad_enabled(grad):
                    result = func(*args, **kwargs)
                given = {memory_of(tensor) for tensor in tensors_in((args, kwargs))}
                fresh = [tensor for tensor in tensors_in(result) if memory_of(tensor) not in given]
                for tensor, value in zip(made, fresh, strict=True):
                    if value.numel():
                        tensor.detach().copy_(value)


class NoCapture(TorchDispatchMode):
    """A recorder that fails, and until then computes nothing, as while a CUDA graph is captured.

    Args:
        calls: of operators, after which it fails; None: it does not fail by itself.
    """

    does = False

    def __init__(self, calls: int | None = None) -> None:
        super().__init__()
        self._left = calls

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("an operation is not permitted while a stream is captured")
        if func._schema.is_mutable:
            return args[0] if func._schema.returns else None
        result = func(*args, **(kwargs or {}))
        given = {memory_of(tensor) for tensor in tensors_in((args, kwargs))}
        for tensor in tensors_in(result):
            if memory_of(tensor) not in given:
                # What lay in this memory.
                tensor.detach().fill_(3)
        return result

    def capture(self, call: Callable[[], None]) -> None:
        """See ``Recorder``."""
        with self:
            call()

    def replay(self) -> None:
        """See ``Recorder``."""
        raise AssertionError("nothing was captured")
