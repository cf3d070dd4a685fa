"""Where ZeRO keeps what belongs to a parameter, and how to put it together again.

DeepSpeed flattens a network's parameters and gives each rank a slice of the result; fp32 masters and optimizer moments
exist only there. A ``Fragment`` says which piece of which parameter stands where in this rank's slice. With it, whole
tensors are gathered for a checkpoint and cut up after one, and the checkpoint knows neither ranks nor stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
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


def gather(
    parameters: Iterable[Parameter],
    pieces: list[Fragment],
    of: Callable[[Fragment], Tensor],
    *,
    device: torch.device,
) -> list[Tensor]:
    """Whole fp32 tensors on the CPU, one a parameter, out of the ranks' pieces; every rank must call it alike."""
    by_parameter: dict[int, list[Fragment]] = {}
    for piece in pieces:
        by_parameter.setdefault(id(piece.parameter), []).append(piece)
    wholes = []
    for parameter in parameters:
        shape = getattr(parameter, "ds_shape", parameter.shape)
        whole = torch.zeros(shape, dtype=torch.float32, device=device)
        for piece in by_parameter.get(id(parameter), []):
            piece.cut(whole).copy_(of(piece))
        # Each element stands on one rank, and is zero on all others.
        dist.all_reduce(whole)
        wholes.append(whole.cpu())
    return wholes


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a parameter or buffer: its slice under ZeRO 3, else all of it."""
    return getattr(tensor, "ds_tensor", tensor).detach()


def whole(tensor: Any, piece: Tensor) -> Tensor:
    """The whole of what ``piece`` is this rank's part of; ``tensor`` says how it was cut. Every rank must call it."""
    if not hasattr(tensor, "ds_tensor"):
        return piece
    pieces = [torch.empty_like(piece) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, piece)
    return torch.cat([p.view(-1) for p in pieces])[: tensor.ds_numel].view(tensor.ds_shape)


def part(tensor: Tensor, value: Tensor) -> Tensor:
    """This rank's part, in a tensor of its own, of a whole ``value``: the inverse of ``whole``."""
    if not hasattr(tensor, "ds_tensor"):
        return value.to(tensor, copy=True)
    piece = torch.zeros_like(tensor.ds_tensor)
    size = piece.numel()
    mine = value.reshape(-1)[dist.get_rank() * size :][:size]
    piece.view(-1)[: mine.numel()].copy_(mine)
    return piece
