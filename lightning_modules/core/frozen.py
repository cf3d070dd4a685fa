"""Frozen helper networks: perceptual encoders, teachers, optical flow.

>>> family.encoder = Frozen(VGG19(file))  # doctest: +SKIP
>>> family.encoder(images, ("relu4_1",))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

Network = TypeVar("Network", bound=Module)


class Frozen(Module, Generic[Network]):
    """Wrapper of a network that is not trained.

    As an attribute of a module it moves to that module's device, and is compiled with a family. But it is in no
    ``parameters()`` and no ``state_dict()``: so in no checkpoint, no optimizer, no average, and no broadcast between
    ranks. It has no gradient (its inputs may), is always in eval mode, and keeps its dtype, also in bf16-true training.

    Args:
        network: the network; is set to eval mode, and its parameters to ``requires_grad=False``.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        network.requires_grad_(False).eval()
        # torch looks for modules among attributes, not inside a tuple.
        self._held = (network,)

    @property
    def network(self) -> Network:
        """The wrapped network."""
        return self._held[0]

    def forward(self, *inputs: object, **options: object) -> object:
        """Calls the network."""
        return self.network(*inputs, **options)

    def compile(self, *arguments: object, **options: object) -> None:
        """Compiles the network, like ``torch.nn.Module.compile``."""
        self.network.compile(*arguments, **options)

    def extra_repr(self) -> str:
        """The class of the network."""
        return type(self.network).__name__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen[Network]:
        # Called by `to`, `cuda`, `half` ... of the module: only a change of the device is applied.
        tensors = [*self.network.parameters(), *self.network.buffers()]
        if tensors:
            device = fn(torch.empty(0, device=tensors[0].device)).device
            if any(tensor.device != device for tensor in tensors):
                self.network.to(device)
        return self
