"""How fast on the device: frames of style transfer, the loader that feeds it, FID, strategies beside a plain loop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch

from gesso.common.cores import granted_cores
from tests.gpu.host import told
from tests.gpu.parts import Place
from tests.gpu.rows import Row
from tests.gpu.utilisation import average, watched


def waited(place: Place, function: Callable[[], object]) -> float:
    """Seconds of a call, with all that it has put upon the device."""
    start = time.perf_counter()
    function()
    if place.cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def frames(place: Place) -> Iterator[Row]:
    """`bench_style`'s frames a second, of trained networks at 256 px, and at 1080p on a GPU."""
    from tests.benchmarks import bench_style

    result = bench_style.frames(5 if place.cuda else 1, 256 if place.cuda else 64)
    for name, fps in result["fps"].items():
        kind, _, size = name.partition(" ")
        yield Row("frames", f"FastStyle, {size}", kind, value=fps, unit="frames/s")


# ---- the loader -----------------------------------------------------------------------------------------------------


def loader(place: Place) -> Iterator[Row]:
    """The loader alone, with its batches copied to the device, and a DCGAN's training that it feeds."""
    images, batch, workers = (8000, 256, max(granted_cores() - 1, 1)) if place.cuda else (200, 16, 1)
    shards = built(place.out, images)
    for size in (224, 64) if place.cuda else (64,):
        name = f"256 px JPEGs to {size} px, batch {batch}, {workers} workers"
        data = data_of(shards, batch, size, workers)
        yield Row(
            "loader", name, "to the device", value=delivered(place, data, 6.0 if place.cuda else 0.5), unit="images/s"
        )
    name = "DCGAN, width " + ("64, bf16-mixed" if place.cuda else "8, 32-true") + f", 64 px, batch {batch}"
    with watched() as busy:
        rate = fed(place, data_of(shards, batch, 64, workers), batch)
    yield Row("loader", name, "fed by it", value=rate, unit="images/s")
    if place.cuda:
        yield told("loader", name, average(busy))


def built(out: Path, images: int) -> Path:
    """Shards of 256 px JPEGs, random crops of paintings, as the loader's benchmark has them."""
    from datamodules.assets.fetching import fetch
    from tests.benchmarks.loader_data import build_shards, write_jpegs

    pictures, jpegs, shards = (out / name for name in ("pictures", "jpegs", "built"))
    for folder in (pictures, jpegs):
        folder.mkdir(exist_ok=True)
    # A tiny set needs few of them, of which each is decoded whole.
    for file in sorted(fetch("terminal_museum", progress=False).rglob("*.jpg"))[: images // 40]:
        shutil.copy(file, pictures)
    write_jpegs(jpegs, pictures, images)
    build_shards(shards, jpegs)
    return shards


def data_of(shards: Path, batch: int, size: int, workers: int) -> Any:
    """The data module of a training on one GPU."""
    from datamodules.shards import ShardData

    return ShardData(str(shards), batch, size=size, crop="random_resized", flip=True, workers=workers)


def delivered(place: Place, data: Any, seconds: float) -> float:
    """Images a second that arrive on the device as float, after the first batches."""
    from datamodules.streaming.floats import to_float_images

    batches = iter(data.train_dataloader())

    def take() -> int:
        images = next(batches)["image"].to(place.device, non_blocking=True)
        return len(to_float_images(images))

    for _ in range(3):
        take()
    arrived, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        arrived += take()
    if place.cuda:
        torch.cuda.synchronize()
    return arrived / (time.perf_counter() - start)


class Rate(L.Callback):
    """Takes the time of a training's steps, without its first."""

    WARM_UP = 5

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.done += 1
        if self.done in (self.WARM_UP, self.steps):
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.seconds


def fed(place: Place, data: Any, batch: int) -> float:
    """Images a second of a DCGAN that a data module feeds under the Trainer, with a moving average."""
    from launch.callbacks.ema import EMA
    from lightning_modules.gan.dcgan import DCGAN
    from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
    from tests.trainers import bare_trainer

    width, steps = (64, 200) if place.cuda else (8, 10)
    module = DCGAN(generator=GeneratorOptions(width), discriminator=DiscriminatorOptions(width))
    rate = Rate(steps)
    trainer = bare_trainer(
        place.out,
        accelerator=place.accelerator,
        devices=1,
        precision="bf16-mixed" if place.cuda else "32-true",
        limit_train_batches=steps,
        callbacks=[EMA(), rate],
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data)
    return batch * (steps - Rate.WARM_UP) / rate.seconds


# ---- FID ------------------------------------------------------------------------------------------------------------


def fid(place: Place) -> Iterator[Row]:
    """Images a second through FID's network and into its statistics."""
    from datamodules.assets.fetching import fetch
    from lightning_modules.metrics.features import build_extractor
    from lightning_modules.metrics.generation import GenerationMetrics, reference_statistics

    count, batch = (8192, 256) if place.cuda else (8, 4)
    images = torch.randint(256, (count, 3, 64, 64), dtype=torch.uint8, device=place.device)
    extractor = build_extractor("inception-tf", fetch("inception", progress=False)).to(place.device)
    reference = reference_statistics([images[:4]], extractor, num_samples=4, cap=0)
    metrics = GenerationMetrics(extractor, reference, num_samples=count).to(place.device)

    def whole() -> None:
        metrics.reset()
        for index in torch.arange(count).split(batch):
            metrics.update(images[index[0] : index[-1] + 1], index)

    if place.cuda:
        waited(place, whole)
    with watched() as busy:
        seconds = waited(place, whole)
    name = f"64 px uint8 images, batch {batch}"
    yield Row("fid", name, "inception-tf", value=count / seconds, unit="images/s")
    if place.cuda:
        yield told("fid", name, average(busy))


# ---- strategies -----------------------------------------------------------------------------------------------------


def zero(place: Place) -> Iterator[Row]:
    """`bench_zero`'s steps of DDP, ZeRO 1 and ZeRO 2, and a plain loop of the same networks on one device."""
    from tests.benchmarks import bench_step, bench_zero
    from tests.launch.planning.memory_program import make

    if not place.cuda:
        yield Row(
            "zero_speed", "a step of ddp, zero1, zero2", state="skipped", detail="python -m tests.benchmarks.bench_zero"
        )
        return
    result = bench_zero.overhead(rounds=2, steps=20)
    batch, ranks = result["batch_per_rank"], result["ranks"]
    name = f"DCGAN, width 64, 64 px, batch {batch} on each of {ranks}, bf16-mixed"
    family = make({"model": {"resolution": 64, "width": 64}})
    plain = bench_step.PlainLoop(family, "bf16-mixed", torch.device("cuda"))
    real = torch.rand(batch, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last) * 2 - 1
    times = [waited(place, lambda: plain.step(real)) for _ in range(30)]
    for who, seconds in {**result["seconds_per_step"], "plain loop": median(times[5:])}.items():
        yield Row("zero_speed", name, who, value=1000 * seconds, unit="ms")
