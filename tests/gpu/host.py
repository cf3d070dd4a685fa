"""Whether the host holds the device up: a step beside a plain loop's, its host work, and that nothing in it waits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.interruption import Interruption
from launch.callbacks.progress import Progress
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.graphs import obstacle
from tests.benchmarks import bench_host, bench_step
from tests.gpu.parts import Place, last_line
from tests.gpu.rows import Row
from tests.gpu.training import FAMILIES, PRECISIONS, TOLERANCES
from tests.gpu.utilisation import average, watched
from tests.launch.strategies.rank_program import GLOBAL_BATCH, make
from tests.trainers import bare_trainer

#: Width and batch of DESIGN.md's table "On a GPU".
SIZES = ((64, 128), (128, 256))
TINY = ((8, 4),)
ROUNDS = 40
#: Never reached: no interval comes round.
NEVER = 1e6


def step(place: Place) -> Iterator[Row]:
    """`bench_step`: a DCGAN's step under the Trainer, a plain loop's and the common example's, in turns."""
    part = "step"
    for width, batch in SIZES if place.cuda else TINY:
        for precision in ("bf16-mixed", "32-true"):
            name = f"DCGAN, width {width}, batch {batch}, {precision}"
            with watched() as busy:
                rounds = ROUNDS if place.cuda else 3
                seconds = bench_step.contest(precision, rounds, batch, width, torch.device(place.device))
            for who, times in seconds.items():
                yield Row(part, name, who, value=1000 * median(times), unit="ms")
            yield Row(part, name, "gesso / plain", value=bench_step.ratio(seconds, "gesso", "plain"))
            yield Row(part, name, "gesso", value=batch / median(seconds["gesso"]), unit="images/s")
            if place.cuda:
                # Of the three in turns: what one of them leaves idle shows in part.
                yield told(part, name, average(busy))


def graphs(place: Place) -> Iterator[Row]:
    """Whole steps as CUDA graphs: every family's weights against those of steps as usual, then how fast they are."""
    part = "cuda_graphs"
    for precision in PRECISIONS:
        for family in FAMILIES:
            try:
                yield replayed(part, family, precision)
            except Exception as error:
                yield Row(part, family, precision, "failed", detail=last_line(error))
    for width, batch in SIZES:
        for precision in ("bf16-mixed", "32-true"):
            name = f"DCGAN, width {width}, batch {batch}, {precision}"
            seconds = bench_step.contest(precision, ROUNDS, batch, width, torch.device(place.device), graphs=True)
            for who, times in seconds.items():
                # The first steps of gesso are as usual.
                yield Row(part, name, who, value=1000 * median(times[ROUNDS // 2 :]), unit="ms")
            yield Row(part, name, "plain / gesso", value=bench_step.ratio(seconds, "plain", "gesso"))
            yield Row(part, name, "gesso / captured", value=bench_step.ratio(seconds, "gesso", "captured"))


def replayed(part: str, family: str, precision: str, steps: int = 8) -> Row:
    """Trains a family with CUDA graphs and without; how far the weights are apart, beside the largest of them."""
    plain, captured = (few_steps(family, precision, steps, cuda_graphs=wanted) for wanted in (False, True))
    if captured.graphs is None:
        return Row(part, family, precision, "skipped", detail=obstacle(captured) or "")
    weights = zip(plain.state_dict().values(), captured.state_dict().values(), strict=True)
    pairs = [(one.double(), other.double()) for one, other in weights if one.is_floating_point()]
    apart = max(float((one - other).abs().max()) for one, other in pairs if one.numel())
    size = max(float(one.abs().max()) for one, _ in pairs if one.numel())
    ok = captured.graphs.replayed > 0 and apart <= TOLERANCES[precision] * size
    return Row(part, family, precision, "ok" if ok else "failed", value=apart / size, unit="apart",
               detail=f"{captured.graphs.replayed} of {steps} steps replayed")  # fmt: skip


def few_steps(family: str, precision: str, steps: int, *, cuda_graphs: bool) -> ImageFamily:
    """A family after some steps on one GPU."""
    module = make(family)
    module.cuda_graphs = cuda_graphs
    options: dict[str, Any] = {"accelerator": "gpu", "devices": 1, "precision": precision, "callbacks": [EMA()]}
    with tempfile.TemporaryDirectory() as folder:
        batches = made_up(module, steps)
        bare_trainer(Path(folder), **options).fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return module


def made_up(module: ImageFamily, steps: int) -> list[dict[str, Any]]:
    """Batches for any family."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(GLOBAL_BATCH, module.batch_spec().channels or 3, 32, 32, generator=draw) * 2 - 1
    batch = {"image": images, "style": images.flip(0), "label": torch.arange(GLOBAL_BATCH) % 2}
    return [{**batch, "position": (number + 1) * GLOBAL_BATCH} for number in range(steps)]


def told(part: str, name: str, busy: float | None) -> Row:
    """The row of a GPU's utilisation."""
    if busy is None:
        return Row(part, name, "utilisation", "skipped", detail="the driver tells no utilisation")
    return Row(part, name, "utilisation", value=busy, unit="%")


def host_work(place: Place) -> Iterator[Row]:
    """`bench_host`: operator calls and CPU time of a step, beside a plain loop's; both are the host's own."""
    torch.set_num_threads(1)
    names = list(bench_host.CONTESTS) if place.cuda else ["DCGAN", "VAE"]
    for name in names:
        ours, theirs = bench_host.calls(name)
        more = ours.total() / theirs.total() - 1
        yield Row("host_work", name, "more operator calls", value=100 * more, unit="%")
    for name in names[:2]:
        seconds = bench_host.contest(name, 50 if place.cuda else 10, count=False).seconds
        for who, times in seconds.items():
            yield Row("host_work", name, who, value=1000 * median(times[bench_host.WARM_UP :]), unit="ms of CPU")


class Unsynchronised(L.Callback):
    """Makes CUDA refuse to wait for the device in every step but the first, in which lists and constants are made.

    It stands behind the callbacks that it watches.
    """

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, *_: object) -> None:
        self.steps += 1
        if self.steps > 1:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def synchronisation(place: Place) -> Iterator[Row]:
    """Steps of every family at every precision, with the callbacks of `gesso fit` that act in each; none logs."""
    for precision in PRECISIONS:
        for family in FAMILIES:
            row = Row("synchronisation", family, precision)
            try:
                unsynchronised(family, precision)
            except Exception as error:
                row = Row("synchronisation", family, precision, "failed", detail=last_line(error))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            yield row


def unsynchronised(family: str, precision: str, accelerator: str = "gpu", steps: int = 4) -> None:
    """Trains on one GPU (a test: on a CPU).

    Raises:
        RuntimeError: something in a step waited for the device.
    """
    module, watch = make(family), Unsynchronised()
    batches = made_up(module, steps)
    callbacks = [Clock(NEVER, NEVER), Progress(), EMA(), Interruption(), watch]
    options: dict[str, Any] = {"accelerator": accelerator, "devices": 1, "precision": precision, "callbacks": callbacks}
    with tempfile.TemporaryDirectory() as folder:
        # Lightning counts Progress as a bar, and Interruption as a checkpoint.
        trainer = bare_trainer(Path(folder), **options, enable_progress_bar=True, enable_checkpointing=True)
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    if watch.steps != steps:
        raise RuntimeError(f"{watch.steps} steps of {steps} were made")
