"""Figures that all ranks of a training share."""

from __future__ import annotations

import torch
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


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """The global batch [ranks * N, ...] out of every rank's rows [N, ...], without a gradient; a collective.

    A global batch is dealt to the ranks one row at a time: rank r of R has the rows r, r + R, r + 2 R ...
    """
    rows = rows.detach()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.stack(parts, dim=1).flatten(0, 1)


def rows_of_this_rank(rows: Tensor) -> Tensor:
    """This rank's rows [N, ...] of a global batch [ranks * N, ...]."""
    if not dist.is_initialized():
        return rows
    return rows[dist.get_rank() :: dist.get_world_size()]
