"""All that gesso uses of DeepSpeed beside its documented interface, seen with DeepSpeed 0.19.

The tests of this room say in a sentence what a new version has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F
from torch.optim import Optimizer

from launch.strategies.fragments import Fragment


class Engine(Protocol):
    """Type of the engine: its members that gesso uses; ``optimizer`` is that of ZeRO stages 1 and 2, or 3."""

    optimizer: Any
    device: torch.device

    def zero_optimization_stage(self) -> int: ...

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...

    def backward(self, loss: Tensor) -> object: ...

    def step(self) -> None: ...

    def destroy(self) -> None: ...

    def _backward_epilogue(self) -> None: ...


def leave_out_compiled_collective(deepspeed: Any) -> None:
    """Keeps DeepSpeed on a CPU from compiling its shared-memory all-reduce, which only its inference calls.

    It would take minutes at first use, and a compiler. Collectives go through the process group all the same.
    """
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False


def restore_linear() -> None:
    """Makes ``F.linear`` torch's own again, which ZeRO 3 replaces for the whole process and never restores."""
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses as Replacing

    F.linear = getattr(Replacing, "linear_bk", F.linear)


@contextmanager
def torchs_linear() -> Iterator[None]:
    """Context manager: ``F.linear`` is torch's own; ZeRO 3's lets go of weights, but has no forward derivative."""
    replaced = F.linear
    restore_linear()
    try:
        yield
    finally:
        F.linear = replaced


def sharded_optimizer(engine: Engine) -> Optimizer:
    """The optimizer that steps this rank's slices, inside ZeRO's own."""
    inner: Optimizer = engine.optimizer.optimizer
    return inner


def prepare_backward(engine: Engine, scale: float | None) -> None:
    """Does what the engine's own forward, which is not used here, does before a backward.

    Args:
        scale: of the loss, in 16-mixed; None: it is not scaled.
    """
    if scale is not None:
        engine.optimizer.loss_scaler.cur_scale = scale
    # ZeRO 3 counts micro-batches by it.
    engine.optimizer.clear_backward_seen_flag()


def finish_backward(engine: Engine) -> None:
    """Does what ends ``engine.backward``, for an engine whose parameters got gradients in another engine's backward."""
    engine._backward_epilogue()


def gradient_norms(engine: Engine) -> list[Tensor]:
    """L2 norms over all ranks of an engine's gradients, still scaled, as its step computes them; all ranks must ask."""
    zero = engine.optimizer
    return list(zero._get_norm_groups()) if engine.zero_optimization_stage() == 3 else [zero.scaled_global_norm()]


def are_finite(norms: Iterable[Tensor]) -> bool:
    """Whether all gradients were finite, by what ``gradient_norms`` returned: DeepSpeed writes inf or -1 otherwise."""
    return all(bool(torch.isfinite(norm) & (norm >= 0)) for norm in norms)


@contextmanager
def stepping_by(engine: Engine, norms: list[Tensor]) -> Iterator[None]:
    """Context manager: the engine's step takes these gradient norms as its own; one that is NaN is an overflow."""
    zero = engine.optimizer
    partitioned = engine.zero_optimization_stage() == 3
    name = "_get_norm_groups" if partitioned else "scaled_global_norm"
    setattr(zero, name, lambda: norms if partitioned else norms[0])
    try:
        yield
    finally:
        delattr(zero, name)


def overflowed(engine: Engine) -> bool:
    """Whether the last gradient norm, which all ranks know, was not finite; then the step has changed nothing."""
    return bool(engine.optimizer.overflow)


def release_weights(engine: Engine) -> None:
    """Takes a network's gathered weights back to the ranks' slices (stage 3)."""
    engine.optimizer.parameter_offload.partition_all_parameters()


def whole_shape(parameter: Parameter) -> torch.Size:
    """The shape of a parameter, whole or cut up."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def weight_slice(parameter: Parameter) -> Tensor:
    """This rank's slice of a weight at stage 3, flat; the last rank's may be longer than what belongs to it."""
    flat: Tensor = parameter.ds_tensor.view(-1)  # type: ignore[attr-defined]
    return flat


def fragments(engine: Engine) -> list[Fragment]:
    """This rank's pieces of an engine's parameters (ZeRO stages 1 to 3)."""
    stage = engine.zero_optimization_stage()
    return list(_of_partitioned_parameters(engine) if stage == 3 else _of_flat_groups(engine))


def _of_flat_groups(engine: Engine) -> Iterator[Fragment]:
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


def _of_partitioned_parameters(engine: Engine) -> Iterator[Fragment]:
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
