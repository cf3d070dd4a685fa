"""Where ZeRO keeps what belongs to a parameter, and how to put it together again.

DeepSpeed flattens a network's parameters and gives each rank a slice of the result; fp32 masters and optimizer moments
exist only there. A ``Fragment`` says which piece of which parameter stands where in this rank's slice. With it, whole
tensors are gathered for a checkpoint and cut up after one, and the checkpoint knows neither ranks nor stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
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


def fragments(engine: Any) -> list[Fragment]:
    """What this rank holds of an engine's parameters (ZeRO stages 1 to 3)."""
    stage = engine.zero_optimization_stage()
    return list(_of_partitioned_parameters(engine) if stage == 3 else _of_flat_groups(engine))


def _of_flat_groups(engine: Any) -> Iterator[Fragment]:
    # Stages 1 and 2 lay a group's parameters end to end and cut the whole into equal slices, one a rank.
    zero = engine.optimizer
    for group, flat in enumerate(zero.single_partition_of_fp32_groups):
        first = dist.get_rank() * int(zero.partition_size[group])
        last, position = first + flat.numel(), 0
        for parameter in zero.round_robin_bit16_groups[group]:
            begin, end = max(position, first), min(position + parameter.numel(), last)
            if begin < end:
                yield Fragment(parameter, flat, begin - first, begin - position, end - begin)
            position += parameter.numel()


def _of_partitioned_parameters(engine: Any) -> Iterator[Fragment]:
    # Stage 3 cuts every parameter by itself, and lays this rank's slices end to end.
    zero = engine.optimizer
    for parameters, flat in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        position = 0
        for parameter in parameters:
            size = parameter.ds_tensor.ds_numel
            offset = dist.get_rank() * size
            length = min(size, parameter.ds_numel - offset)
            if length > 0:
                yield Fragment(parameter, flat, position, offset, length)
            position += size
