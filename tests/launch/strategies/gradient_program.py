"""What each rank of test_gradients.py runs: `LOCAL_RANK=r gradient_program.py OUT JOB`.

Reduces gradients of odd modules by ``OverlappedReduction`` and by one sum after the pass, and writes both.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from launch.strategies import gradients
from launch.strategies.gradients import OverlappedReduction
from launch.strategies.shared_buffers import SharedBuffers


class Odd(nn.Module):
    """Two networks with a shared layer, one that is not always used, and maps whose last dimension is the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleDict(
            {
                "in": nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
                "seldom": nn.Linear(8, 8),
                "wide": nn.Linear(8, 300),
                "out": nn.Linear(300, 5).double(),
            }
        )
        self.second = nn.ModuleDict({"out": nn.Linear(5, 1).double(), "shared": self.first["wide"]})
        self.norm = nn.BatchNorm1d(5)

    def forward(self, images: Tensor, *, seldom: bool, checkpointed: bool = False) -> Tensor:
        def head(x: Tensor) -> Tensor:
            x = self.first["seldom"](x) if seldom else x
            return self.first["out"](self.first["wide"](x).relu().double())

        x = self.first["in"](images).mean((2, 3))
        return checkpoint(head, x, use_reentrant=False) if checkpointed else head(x)


def passes(module: Odd, rank: int) -> list[tuple[str, bool, Callable[[], Tensor]]]:
    """Passes by key, whether ranks average after it, and loss."""
    generator = torch.Generator().manual_seed(rank)

    def images() -> Tensor:
        return torch.randn(4, 3, 8, 8, generator=generator)

    def loss(x: Tensor, **options: Any) -> Callable[[], Tensor]:
        return lambda: module(x, **options).square().mean()

    def penalised(x: Tensor) -> Tensor:
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(module(x, seldom=True).sum(), x, create_graph=True)
        return slope.square().sum()

    return [
        ("first", True, loss(images(), seldom=True)),
        ("first", True, loss(images(), seldom=False)),
        # Two micro-batches.
        ("first", False, loss(images(), seldom=True)),
        ("first", True, loss(images(), seldom=True)),
        ("first", True, loss(images(), seldom=True, checkpointed=True)),
        ("first", True, lambda: penalised(images())),
        (
            "second",
            True,
            lambda: module.second["out"](
                module.second["shared"](images().mean((2, 3))[:, [0] * 8])[:, :5].double()
            ).sum(),
        ),
    ]


def reduced_after(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def run(how: str, rank: int, *, compress: bool) -> list[list[Tensor | None]]:
    torch.manual_seed(0)
    module = Odd()
    parameters = list(module.parameters())
    reduction = OverlappedReduction(parameters, compress=compress) if how == "overlapped" else None
    results = []
    for turn in range(3):
        if turn == 2:
            # Later a family stops to train a layer, and begins with another one.
            module.first["in"].requires_grad_(False)
        for key, averaging, loss in passes(module, rank + 100 * turn):
            own = {id(parameter) for parameter in getattr(module, key).parameters()}
            frozen = [p for p in parameters if p.requires_grad and id(p) not in own]
            for parameter in frozen:
                parameter.requires_grad_(False)
            if reduction is not None:
                reduction.begin(key, last=averaging)
                loss().backward()
                reduction.finish() if averaging else reduction.keep()
            else:
                loss().backward()
                if averaging:
                    reduced_after(parameters)
            for parameter in frozen:
                parameter.requires_grad_(True)
            if averaging:
                results.append([None if p.grad is None else p.grad.clone() for p in parameters])
                assert all(p.grad is None or p.grad.stride() == p.stride() for p in parameters)
                for parameter in parameters:
                    parameter.grad = None
    return results


def buffers(rank: int) -> dict[str, Any]:
    """What happens to buffers of three dtypes, of which some are changed by rank, and one is each rank's own affair."""
    module = nn.BatchNorm1d(3)
    module.replicated_buffers = ("kept",)  # type: ignore[assignment]
    module.register_buffer("kept", torch.zeros(5))
    module.register_buffer("filter", torch.full((2,), float(rank)))
    module.register_buffer("short", torch.zeros(3, dtype=torch.bfloat16))
    shared = SharedBuffers(module)
    shared.share()
    first = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.filter.data.fill_(float(rank))
    sent = []
    real = dist.broadcast
    dist.broadcast = lambda tensor, src: (sent.append(tensor.nbytes), real(tensor, src=src))[1]  # type: ignore
    try:
        known = [owner._buffers[name] for owner, name in shared._places]
        shared._seen = [(buffer, -1 if buffer is None else buffer._version) for buffer in known]
        module(torch.randn(5, 3, generator=torch.Generator().manual_seed(rank)))
        module.eval()
        module.kept.add_(rank)
        module.short = torch.full((3,), float(rank), dtype=torch.bfloat16)
        shared.share()
        shared.share()
    finally:
        dist.broadcast = real
    return {"first": first, "later": dict(module.named_buffers()), "sent": sent}


def main() -> None:
    out, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    rank = int(os.environ["LOCAL_RANK"])
    torch.set_num_threads(1)
    gradients.BUCKET_BYTES, gradients.LAST_BUCKET_BYTES = job["bucket_bytes"], job["bucket_bytes"] // 4
    address = f"tcp://127.0.0.1:{job['port']}"
    dist.init_process_group("gloo", address, timedelta(seconds=60), job["ranks"], rank)
    try:
        results = {how: run(how, rank, compress=job["compress"]) for how in ("after", "overlapped")}
        torch.save({**results, "buffers": buffers(rank)}, out / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
