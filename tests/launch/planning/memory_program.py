"""What each rank of test_plan.py and bench_zero.py runs: `LOCAL_RANK=r memory_program.py OUT JOB...`.

A job is a JSON object: ``name``, ``strategy``, ``port``, ``ranks``, ``batch`` (images on a rank), ``steps``, ``model``
(options of DCGAN), and maybe ``family`` (``mixed``), ``zero`` (DeepSpeed's zero_optimization), ``precision``,
``accelerator`` and ``measure`` (look into memory at every update). Writes OUT/<name>-<rank>.json.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from launch.callbacks.ema import EMA
from launch.planning.footprint import example_batch
from launch.strategies import ddp, zero
from lightning_modules.gan.dcgan import DCGAN
from tests.launch.strategies.ranks import run_ranks
from tests.memory import resident

HANG_SECONDS = 400


# ---- the side that starts the ranks ---------------------------------------------------------------------------------


def measure_ranks(
    out: Path, jobs: Sequence[dict[str, Any]], *, ranks: int, frugal: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Runs every job on ``ranks`` fresh processes, one job after the other: what each rank measured, by job's name.

    Args:
        out: a folder for the ranks' files.
        jobs: see above; ``ranks`` and ``port`` are filled in.
        ranks: processes, one thread each.
        frugal: memory goes back to the system as soon as it is freed, so that a process is as large as its tensors;
            slower.

    Raises:
        RuntimeError: a rank failed; with the ends of the ranks' logs.
    """
    environment = {"MALLOC_MMAP_THRESHOLD_": "262144"} if frugal else {}
    run_ranks(__name__, out, jobs, ranks=ranks, fresh=environment)
    return {
        job["name"]: [json.loads((out / f"{job['name']}-{rank}.json").read_text()) for rank in range(ranks)]
        for job in jobs
    }


# ---- measuring ------------------------------------------------------------------------------------------------------


def storages(tensors: Iterable[Any]) -> dict[int, int]:
    """Address -> bytes of the memory behind tensors; views of one memory count once."""
    found = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in found if storage.nbytes()}


def held(module: Any, name: str) -> dict[str, int]:
    """Bytes that this rank holds of a network at this moment, by what they are for."""
    network, strategy = getattr(module, name), module.trainer.strategy
    parameters = list(network.parameters())
    engine = getattr(strategy, "engines", {}).get(name)
    sharding = engine.optimizer if engine is not None and engine.zero_optimization() else None
    inner = sharding.optimizer if sharding else strategy.optimizers[module.trained_networks.index(name)]
    flats = [
        *getattr(sharding, "single_partition_of_fp32_groups", []),
        *getattr(sharding, "fp32_partitioned_groups_flat", []),
    ]
    weights = storages([*(getattr(p, "ds_tensor", p) for p in parameters), *network.buffers()])
    masters = {address: size for address, size in storages(flats).items() if address not in weights}
    reduced = [
        gradient
        for attribute in ("averaged_gradients", "all_grad_tensors")
        for gradients in getattr(sharding, attribute, {}).values()
        for gradient in gradients or []
    ]
    whole = [p.grad for p in [*parameters, *flats]]
    summed = [
        getattr(sharding, "grad_partitions_flat_buffer", None),
        *getattr(sharding, "accumulated_grads_in_cpu", {}).values(),
    ]
    states = [value for state in inner.state.values() for value in state.values()]
    return {
        "weights": sum(weights.values()),
        "masters": sum(masters.values()),
        "gradients": sum(storages([*whole, *reduced, *summed]).values()),
        "optimizer": sum(storages(states).values()),
    }


def everything() -> int:
    """Bytes of all tensors that Python knows of in this process."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor) and thing.device.type != "meta"]
    return sum(storages(tensors).values())


class Measure(L.Callback):
    """Looks into memory after every backward and inside every optimizer's step."""

    def __init__(self) -> None:
        self.networks: dict[str, dict[str, int]] = {}
        # What an earlier job has left behind is not this one's.
        self.before = everything()
        self.total = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        strategy: Any = trainer.strategy
        backward = strategy.backward

        def observed(*args: Any, **kwargs: Any) -> Any:
            result = backward(*args, **kwargs)
            for name in pl_module.trained_networks:
                if any(p.requires_grad for p in getattr(pl_module, name).parameters()):
                    self._most(name, held(pl_module, name))
            return result

        strategy.backward = observed
        for name, optimizer in zip(pl_module.trained_networks, strategy.optimizers, strict=True):
            optimizer.register_step_pre_hook(lambda inner, *_, name=name: self._most(name, {"stepped": stepped(inner)}))

    def _most(self, name: str, found: dict[str, int]) -> None:
        known = self.networks.setdefault(name, {})
        known.update({key: max(value, known.get(key, 0)) for key, value in found.items()})

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        for name in pl_module.trained_networks:
            now = held(pl_module, name)
            self.networks[name].update({key: now[key] for key in ("weights", "masters", "optimizer")})
            ema = pl_module.averages["ema"].values
            averages = [mean for key, mean in ema.items() if key.startswith(f"{name}.")]
            self.networks[name]["average"] = sum(storages(averages).values())
        self.total = everything() - self.before


def stepped(optimizer: Optimizer) -> int:
    """Bytes of the gradients that an optimizer is about to use."""
    return sum(storages(p.grad for group in optimizer.param_groups for p in group["params"]).values())


# ---- the ranks' side ------------------------------------------------------------------------------------------------


class Mixed(DCGAN):
    """Adam in two groups for the generator, SGD with momentum for the discriminator."""

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        matrices = [p for p in self.generator.parameters() if p.dim() > 1]
        vectors = [p for p in self.generator.parameters() if p.dim() == 1]
        return {
            "generator": Adam([{"params": matrices}, {"params": vectors, "lr": 1e-4}], 2e-4, fused=True),
            "discriminator": SGD(self.discriminator.parameters(), 1e-3, momentum=0.9),
        }


def make(job: dict[str, Any]) -> DCGAN:
    torch.manual_seed(0)
    return (Mixed if job.get("family") == "mixed" else DCGAN).from_options(job["model"])


class Steps:
    """The Trainer's loader: one batch again and again, and how long each step took."""

    def __init__(self, batch: dict[str, Any], steps: int) -> None:
        self.batch, self.steps = batch, steps
        self.seconds: list[float] = []

    def __len__(self) -> int:
        # One more, since nobody can take the time of the last one: the Trainer asks for nothing after it.
        return self.steps + 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(len(self)):
            start = time.perf_counter()
            yield self.batch
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - start)


def run(job: dict[str, Any], out: Path) -> None:
    measure = Measure()
    module = make(job)
    strategy: Any = StrategyRegistry.get(job["strategy"])
    if isinstance(strategy, zero.MultiNetworkZeRO):
        strategy.config = {"zero_optimization": job.get("zero", {})}
    steps = Steps(example_batch(module, job["batch"]), job["steps"])
    trainer = L.Trainer(
        accelerator=job.get("accelerator", "cpu"),
        devices=job["ranks"],
        strategy=strategy,
        precision=job.get("precision", "32-true"),
        max_epochs=1,
        callbacks=[EMA(), *([measure] if job.get("measure") else [])],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    before = resident("VmRSS")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, steps)
    result = {
        "networks": measure.networks,
        "total": measure.total,
        "seconds": steps.seconds,
        "resident_before": before,
        "resident_peak": resident("VmHWM"),
        "cuda_peak": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }
    (out / f"{job['name']}-{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(result))


def main() -> None:
    # A hang tells where it is.
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    ddp.register()
    zero.register()
    for text in sys.argv[2:]:
        job = json.loads(text)
        os.environ["MASTER_PORT"] = str(job["port"])
        run(job, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
