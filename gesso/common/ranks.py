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


def trained_rows_of_all_ranks(rows: Tensor) -> Tensor:
    """Like ``rows_of_all_ranks``, with a gradient for this rank's own rows, for a loss of the whole global batch.

    Every rank then computes the same loss. Its gradient for the own rows is multiplied by the number of ranks, so that
    the mean of the ranks' gradients, which strategies take, is that of one process with the global batch.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    rank, ranks = dist.get_rank(), dist.get_world_size()
    everyone = rows_of_all_ranks(rows).unflatten(0, (-1, ranks))
    # The value of the rows, and as many times their gradient as there are ranks.
    own = rows.detach() + ranks * (rows - rows.detach())
    return torch.cat([everyone[:, :rank], own[:, None], everyone[:, rank + 1 :]], 1).flatten(0, 1)
