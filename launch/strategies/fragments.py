"""Maps parameters to their pieces in ZeRO's flat tensors.

DeepSpeed flattens a network's parameters and gives each rank a slice of the result; fp32 masters and optimizer moments
exist only there. A ``Fragment`` says which piece of which parameter stands where in this rank's slice. With it, whole
tensors are gathered for a checkpoint and cut up after one, and the checkpoint knows neither ranks nor stages.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import Parameter


@dataclass(frozen=True)
class Fragment:
    """``length`` elements of ``parameter`` from ``offset`` on, at ``start`` in this rank's ``flat`` fp32 tensor."""

    parameter: Parameter
    flat: Tensor
    start: int
    offset: int
    length: int

    def of(self, flat: Tensor) -> Tensor:
        """This piece in a tensor that is laid out like ``flat``: the master itself, or one of its moments."""
        return flat.detach().view(-1).narrow(0, self.start, self.length)

    def cut(self, whole: Tensor) -> Tensor:
        """This piece of a whole tensor of the parameter's shape."""
        return whole.reshape(-1).narrow(0, self.offset, self.length)
