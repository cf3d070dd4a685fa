"""What captures the device's work of a training step, to do it again: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(Protocol):
    """Captures the device's work of a call, to do it again and again."""

    #: Whether ``capture`` does the work as well; a CUDA graph does not.
    does: bool

    def capture(self, call: Callable[[], None]) -> None:
        """Runs ``call`` once and remembers its work."""
        ...

    def replay(self) -> None:
        """Does that work, on the same memory."""
        ...


class Outside(TorchDispatchMode):
    """Keeps the tensors that operator calls read and none of these has made.

    Their memory must not be given to others while a graph refers to it (constants in a cache, say).
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(  # type: ignore[explicit-any] # as torch's
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in tensors_in((args, kwargs)):
            if (place := memory_of(tensor)) not in self._made:
                self.tensors.setdefault(place, tensor)
        result = func(*args, **(kwargs or {}))
        self._made.update(memory_of(tensor) for tensor in tensors_in(result))
        self._made.difference_update(self.tensors)
        return result


def tensors_in(values: object) -> list[Tensor]:
    """The tensors of arguments, or results, of an operator."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def memory_of(tensor: Tensor) -> int:
    """Where a tensor's storage begins; views have that of what they are views of."""
    return tensor.untyped_storage().data_ptr()


class CudaGraph:
    """A CUDA graph.

    Args:
        pool: memory of all graphs of one training, of ``torch.cuda.graph_pool_handle``.
    """

    does = False

    def __init__(self, pool: Any) -> None:  # type: ignore[explicit-any] # a tuple of torch's
        self._graph, self._pool, self._outside = torch.cuda.CUDAGraph(), pool, Outside()

    def capture(self, call: Callable[[], None]) -> None:
        """See ``Recorder``."""
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, pool=self._pool), self._outside:
            call()

    def replay(self) -> None:
        """See ``Recorder``."""
        self._graph.replay()
