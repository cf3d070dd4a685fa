"""Figures that all ranks of a training share."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of every rank's ``values``, without a gradient; a collective: all ranks must call it.

    Of one rank, or without ranks, it is the values themselves.
    """
    values = values.detach()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's ``values``, without a gradient; a collective: all ranks must call it."""
    values = values.detach()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total
