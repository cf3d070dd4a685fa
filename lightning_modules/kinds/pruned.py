"""Families whose training may begin with the heaviest channels of a wider run of the same family."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor

from lightning_modules.core.family import ImageFamily
from lightning_modules.networks.pruning import ChannelGroup, pruned_state


class Prunable(Protocol):
    """A network that knows which channels go together."""

    def channel_groups(self) -> list[ChannelGroup]: ...

    def state_dict(self) -> dict[str, Tensor]: ...


class PrunedFamily(ImageFamily):
    """A family with the option ``pruned_from``: a run of the same family that is wider, and else alike.

    A network that knows its ``channel_groups`` takes over the channels that weigh most, others take over all weights.
    """

    #: A run, or a checkpoint of one; None: training begins with random weights.
    pruned_from: str | None = None

    def runs(self) -> dict[str, str]:
        """See ``ImageFamily``."""
        return {"pruned_from": self.pruned_from} if self.pruned_from else {}

    def take_run(self, option: str, module: ImageFamily) -> None:
        """See ``ImageFamily``."""
        if type(module) is not type(self):
            raise ValueError(f"is the run of {module.described()}, not of {self.described()}")
        # Judges that the wide run did not have begin with random weights.
        for name in (name for name in self.optimization() if hasattr(module, name)):
            own, wide = getattr(self, name), getattr(module, name)
            groups = cast(Prunable, wide).channel_groups() if hasattr(wide, "channel_groups") else []
            try:
                own.load_state_dict(pruned_state(wide.state_dict(), own.state_dict(), groups))
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from error
