"""What each rank of test_speed.py runs: `LOCAL_RANK=r speed_program.py OUT JOB`.

A job is a JSON object: ``model`` (options of DCGAN), ``batch`` (images on a rank), ``turns``, ``bytes``, ``ranks`` and
``port``. The ranks train together under ``ddp``, in turns:

- a step whose ranks wait for each other where they would exchange something, and send nothing: its compute, by ranks
  that work at the same time, the slowest one's where ranks that share cores do not progress alike;
- a step as it is;
- all-reduces of a few bytes and of ``bytes``.

So more ranks than cores, and whatever else a machine does, slow all three alike: what is compared is made within a
second. Ranks wait for each other between turns. One rank exchanges nothing: its compute is what `gesso plan` measures
here, in turns with trainings of a few steps, both in CPU time. Writes OUT/<rank>.json: seconds of every turn by kind.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from launch.callbacks.ema import EMA
from launch.planning.compute import LEAST_STEPS, WARM_UP, seconds_of_step
from launch.planning.footprint import example_batch
from launch.strategies import ddp
from launch.strategies.ddp import MultiNetworkDDP
from lightning_modules.core.family import Batch
from tests.launch.planning import memory_program
from tests.launch.strategies.ranks import run_ranks

HANG_SECONDS = 400


def measure(out: Path, job: dict[str, Any], *, ranks: int) -> list[dict[str, list[float]]]:
    """Runs the job on ``ranks`` processes: what each measured."""
    run_ranks(__name__, out, [job], ranks=ranks, fresh={})
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(ranks)]


class MuteDDP(MultiNetworkDDP):
    """DDP that can wait for the other ranks instead of exchanging something with them."""

    def mute(self, mute: bool) -> None:
        self._reduce = not mute  # as between micro-batches

    def post_backward(self, closure_loss: Tensor) -> None:
        super().post_backward(closure_loss)
        if not self._reduce:
            dist.barrier()

    def share_buffers(self) -> None:
        if self._reduce:
            super().share_buffers()
        else:
            dist.barrier()


class Turns:
    """The Trainer's loader: one batch again and again, and how long each kind of turn took."""

    def __init__(self, batch: Batch, strategy: MuteDDP, job: dict[str, Any]) -> None:
        self.seconds: dict[str, list[float]] = {"compute": [], "step": [], "latency": [], "large": []}
        self._batch, self._strategy, self._turns = batch, strategy, job["turns"]
        self._few, self._many = torch.zeros(2), torch.zeros(job["bytes"] // 4)

    def __len__(self) -> int:
        return 2 * self._turns + 1  # of the last one nobody can tell the time

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._turns):
            for kind in ("compute", "step"):
                self._strategy.mute(kind == "compute")
                dist.barrier()
                start = time.perf_counter()
                yield self._batch
                self.seconds[kind].append(time.perf_counter() - start)
            self._time("latency", lambda: dist.all_reduce(self._few))
            self._time("large", lambda: dist.all_reduce(self._many))
        yield self._batch

    def _time(self, kind: str, exchange: Callable[[], object]) -> None:
        dist.barrier()
        start = time.perf_counter()
        exchange()
        self.seconds[kind].append(time.perf_counter() - start)


def alone(job: dict[str, Any], out: Path) -> dict[str, list[float]]:
    """What `gesso plan` measures, in turns with a training."""
    # Turns of seconds each, in which others may use the machine more or less: one thread that never waits takes as much
    # CPU time as it would take by the clock alone.
    time.perf_counter = time.process_time
    seconds: dict[str, list[float]] = {"compute": [], "step": []}
    training = {**job, "strategy": "ddp", "steps": WARM_UP + LEAST_STEPS, "name": "training"}
    for _ in range(job["turns"]):
        module = memory_program.make(job)
        seconds["compute"].append(seconds_of_step(module, job["batch"], accelerator="cpu", seconds=0))
        memory_program.run(training, out)
        steps = json.loads((out / "training-0.json").read_text())["seconds"]
        seconds["step"].append(median(steps[WARM_UP:]))
    return seconds


def together(job: dict[str, Any], out: Path) -> dict[str, list[float]]:
    """Turns of all ranks."""
    module, strategy = memory_program.make(job), MuteDDP()
    turns = Turns(example_batch(module, job["batch"]), strategy, job)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=job["ranks"],
        strategy=strategy,
        max_epochs=1,
        callbacks=[EMA()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    trainer.fit(module, turns)
    return turns.seconds


def main() -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    out, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    os.environ["MASTER_PORT"] = str(job["port"])
    ddp.register()
    seconds = (alone if job["ranks"] == 1 else together)(job, out)
    (out / f"{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
