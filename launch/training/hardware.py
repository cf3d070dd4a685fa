"""Capabilities of this machine: device, precision, strategy, and the remedies when memory runs out."""

from __future__ import annotations

import os
import sys
from typing import Literal, TypeVar

import lightning as L
import torch

from gesso.common.cores import granted_cores
from launch.runs.tracking import rank_zero_print
from launch.strategies.zero import MultiNetworkZeRO
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.options import constructor_options, paths

T = TypeVar("T")


class OutOfMemory(RuntimeError):
    """Training ran out of memory; the message names the options to change."""


def best_device(name: str = "auto") -> torch.device:
    """The device of this name; ``auto``: a GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        gpus = torch.cuda.device_count()
        known = f"auto, cpu{', cuda, cuda:1 ...' if gpus else ''} ({gpus} GPUs are here)"
        raise ValueError(f"device {name!r}: no such device here; name {known}") from None
    return device


def affordable_precision(precision: T, accelerator: object) -> T | Literal["32-true"]:
    """``precision``, but fp32 for bf16 on a CPU that has no instructions for it: 30 times slower was seen there."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and best_device().type == "cpu")
    if precision == "bf16-mixed" and on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        rank_zero_print("this CPU has no bf16 instructions: training in 32-true instead of bf16-mixed")
        return "32-true"
    return precision


def usable_strategy(strategy: T, devices: object, nodes: int) -> T | Literal["ddp"]:
    """``strategy``, but ``ddp`` for several ranks of a notebook: Lightning would fork them, with threads at work."""
    several = nodes > 1 or (devices == "auto" and torch.cuda.device_count() > 1) or devices not in ("auto", 1, "1")
    return "ddp" if strategy == "auto" and several and hasattr(sys, "ps1") else strategy


def fit_threads(trainer: L.Trainer) -> None:
    """Limits the threads of a training on a CPU to the cores that a rank may use; warns if the machine is busy.

    Lightning divides the cores that the machine shows by the ranks, but knows no quota. Threads that share a core wait
    for each other at every operation: on two busy cores, two threads trained 23 to 40 images/s, one thread 1,030 to
    1,090. The load itself does not change the number of threads, on which sums depend.
    """
    if trainer.strategy.root_device.type != "cpu":
        return
    ranks = trainer.num_devices
    cores = granted_cores(ranks)
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
        if ranks > 1:
            # For the ranks that this one starts, and against Lightning's own number.
            os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    if trainer.world_size > 1:
        return
    load = os.getloadavg()[0]
    if torch.get_num_threads() > 1 and load > cores - 0.5:
        rank_zero_print(
            f"this machine is busy (load {load:.1f}, {cores} cores): {torch.get_num_threads()} threads may wait for "
            "each other; OMP_NUM_THREADS=1 may be many times faster"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host."""
    on_host = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or on_host


def out_of_memory(trainer: L.Trainer, module: ImageFamily, batch_size: int) -> OutOfMemory:
    """The error for a training that ran out of memory, with the options to change, the cheapest first.

    Args:
        trainer: its trainer.
        module: its family.
        batch_size: images per rank and step.
    """
    strategy = trainer.strategy
    stage = strategy.stage if isinstance(strategy, MultiNetworkZeRO) else 0
    offload = isinstance(strategy, MultiNetworkZeRO) and strategy.offload
    levers = []
    if module.micro_batches < batch_size:
        levers.append(f"--model.micro_batches={module.micro_batches * 2} (now {module.micro_batches})")
    off = [path for path, on in paths(constructor_options(module.hparams), "gradient_checkpointing") if not on]
    if off:
        levers.append(" ".join(f"--model.{path}=true" for path in off))
    levers += [f"--trainer.strategy=zero{number}" for number in (2, 3) if number > stage and trainer.world_size > 1]
    if not offload:
        levers.append(f"--trainer.strategy=zero{3 if trainer.world_size > 1 else 2}_offload")
    levers.append("a smaller --data.global_batch_size")
    where = f"rank {trainer.global_rank} on {strategy.root_device}"
    return OutOfMemory(f"out of memory: {where}, {batch_size} images a step; in this order: {'; '.join(levers)}")
