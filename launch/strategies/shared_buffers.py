"""Buffers that follow the first rank's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from launch.strategies.messages import Message
from lightning_modules.core.averages import averaged_buffers
from lightning_modules.core.tensor_lists import same


class SharedBuffers:
    """The buffers of a module, which every rank takes over from the first one when they have changed.

    Batch norm's statistics change in every step, the filters that a network keeps never. Whether a buffer has changed
    is known without reading it, from its version; only torch's norms change their statistics without a new one. Ranks
    change the same buffers, as they run one program. An ``nn.Module`` names in its attribute ``replicated_buffers``
    those that every rank changes to the same values by itself: they are not sent.

    Args:
        module: the module; its submodules must not change.
    """

    def __init__(self, module: Module) -> None:
        places = dict.fromkeys(
            (owner, name)
            for owner in module.modules()
            for name in owner._buffers
            if name not in getattr(owner, "replicated_buffers", ())
        )
        self._places = list(places)
        self._statistics = [is_statistic(owner, name) for owner, name in self._places]
        self._seen: list[tuple[Tensor | None, int]] = [(None, -1)] * len(self._places)
        self._message: Message | None = None

    def share(self) -> None:
        """Overwrites the buffers that have changed since the last call with the first rank's; a collective."""
        buffers = [owner._buffers[name] for owner, name in self._places]
        changed = [
            buffer
            for buffer, statistic, (seen, version) in zip(buffers, self._statistics, self._seen, strict=True)
            if buffer is not None and buffer.numel() and (statistic or buffer is not seen or buffer._version != version)
        ]
        if changed:
            if self._message is None or not same(changed, self._message.tensors):
                self._message = Message(changed)
            self._message.broadcast()
        self._seen = [(buffer, -1 if buffer is None else buffer._version) for buffer in buffers]


def is_statistic(owner: Module, name: str) -> bool:
    """Whether a buffer is a running statistic, which ``torch.nn.functional.batch_norm`` and its like change."""
    return name.startswith("running_") or name in averaged_buffers(owner)
