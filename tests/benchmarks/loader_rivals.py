"""The loaders of the benchmark, each set up as its documentation does, one process each.

All yield float32 NCHW batches in [-1, 1] of random resized, randomly mirrored crops. The process reads one order a
line from its input (size, workers, seconds) and answers with images and seconds; between orders it rests.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 64
#: Batches that are not timed: what had been prepared before the order came, and what else needs to settle.
WARM_UP = 6
RIVALS = ("torchvision", "webdataset", "litdata", "mosaicml-streaming")

Loader = Iterator[Any]


def gesso(folder: Path, size: int, workers: int, kind: Any = "process", shards: str = "built") -> Loader:
    """This project's, with shards that it built."""
    from datamodules.shards import ShardData
    from datamodules.streaming.floats import to_float_images

    data = ShardData(
        str(folder / shards), BATCH, size=size, crop="random_resized", flip=True, workers=workers, worker_kind=kind
    )
    for batch in data.train_dataloader():
        yield to_float_images(batch["image"])


def gesso_threads(folder: Path, size: int, workers: int) -> Loader:
    """The same with threads instead of processes."""
    return gesso(folder, size, workers, "thread")


def gesso_indexed(folder: Path, size: int, workers: int) -> Loader:
    """This project's on webdataset's tars, whose JPEGs are the files as they were."""
    return gesso(folder, size, workers, shards="indexed")


def _transform(size: int, *, pil: bool) -> Callable[[Any], Any]:
    """torchvision's own advice: v2, uint8 until the crop is small."""
    import torch
    from torchvision.transforms import v2

    return v2.Compose(
        [
            *([v2.PILToTensor()] if pil else []),
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


def torchvision(folder: Path, size: int, workers: int) -> Loader:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(folder / "jpeg"), _transform(size, pil=True))
    for images, _ in DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True):
        yield images


def webdataset(folder: Path, size: int, workers: int) -> Loader:
    import webdataset as wds

    tars = [str(tar) for tar in sorted((folder / "tars").glob("*.tar"))]
    dataset = (
        wds.WebDataset(tars, shardshuffle=100)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(_transform(size, pil=True), None)
        .batched(BATCH, partial=False)
    )
    for images, _ in wds.WebLoader(dataset, batch_size=None, num_workers=workers):
        yield images


def litdata(folder: Path, size: int, workers: int) -> Loader:
    import litdata as ld

    transform = _transform(size, pil=False)

    class Crops(ld.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return transform(sample["image"]), sample["label"]

    dataset = Crops(str(folder / "litdata"), shuffle=True, drop_last=True)
    for images, _ in ld.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers):
        yield images


def litdata_fast(folder: Path, size: int, workers: int) -> Loader:
    """litdata's streaming with this project's decoding, cropping, resizing and conversion."""
    import litdata as ld
    import numpy as np
    import torch

    from datamodules.streaming.floats import to_float_images
    from datamodules.streaming.transforms import DRAWS, Augment

    augment = Augment(size, "random_resized", flip=True)
    rng = np.random.default_rng()

    class Crops(ld.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            out = np.empty((size, size, 3), np.uint8)
            augment.render(sample["image"], out, rng.random(DRAWS).tolist())
            return torch.from_numpy(out), sample["label"]

    dataset = Crops(str(folder / "litdata-raw"), shuffle=True, drop_last=True)
    for images, _ in ld.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers):
        yield to_float_images(images)


def mosaicml_streaming(folder: Path, size: int, workers: int) -> Loader:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    transform = _transform(size, pil=True)

    class Crops(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return transform(sample["image"]), sample["label"]

    dataset = Crops(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
    for images, _ in DataLoader(dataset, batch_size=BATCH, num_workers=workers, drop_last=True):
        yield images


LOADERS: dict[str, Callable[[Path, int, int], Loader]] = {
    "gesso": gesso,
    "gesso-threads": gesso_threads,
    "gesso-indexed": gesso_indexed,
    "torchvision": torchvision,
    "webdataset": webdataset,
    "litdata": litdata,
    "litdata-fast": litdata_fast,
    "mosaicml-streaming": mosaicml_streaming,
}


class Timed:
    """Takes a loader's time, keeps its workers between orders, and starts it again at the end of its epoch."""

    def __init__(self, open_loader: Callable[[], Loader]) -> None:
        self.open_loader = open_loader
        self.loader: Loader = iter(())

    def run(self, seconds: float) -> tuple[int, float]:
        """Images and the seconds they took: so many, or, of an epoch shorter than that, what it lasted."""
        images, took = self._count(seconds)
        if took < seconds:
            self.loader = self.open_loader()
            images, took = self._count(seconds)
        return images, took

    def _count(self, seconds: float) -> tuple[int, float]:
        """Like ``run``, to the end of the running epoch at most."""
        for _ in islice(self.loader, WARM_UP):
            pass
        start, images, took = time.perf_counter(), 0, 0.0
        for batch in self.loader:
            images, took = images + len(batch), time.perf_counter() - start
            if took >= seconds:
                break
        return images, took


class Bare:
    """No loader: decode, crop and resize from memory in a loop, on ``workers`` cores; no batch, no float, no order."""

    def __init__(self, folder: Path, size: int, workers: int, pool: type[Executor]) -> None:
        self.arguments = (folder, size)
        self.workers = max(1, workers)
        self.pool = pool(self.workers)

    def run(self, seconds: float) -> tuple[int, float]:
        """Images and seconds, like ``Timed.run``."""
        list(self.pool.map(_spin, [(*self.arguments, 0.1)] * self.workers))
        start = time.perf_counter()
        images = sum(self.pool.map(_spin, [(*self.arguments, seconds)] * self.workers))
        return images, time.perf_counter() - start


_spun: dict[Path, list[bytes]] = {}


def _spin(order: tuple[Path, int, float]) -> int:
    import numpy as np

    from datamodules.streaming.transforms import DRAWS, Augment

    folder, size, seconds = order
    if folder not in _spun:
        # With a byte behind its end, no JPEG is decoded in part: that gesso leaves out rows is a merit of its own.
        _spun[folder] = [file.read_bytes() + b"\0" for file in sorted((folder / "jpeg" / "0").glob("*.jpg"))]
    files = _spun[folder]
    augment = Augment(size, "random_resized")
    out = np.empty((size, size, 3), np.uint8)
    draws = np.random.default_rng().random((len(files), DRAWS)).tolist()
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        augment.render(files[images % len(files)], out, draws[images % len(files)])
        images += 1
    return images


def open_contestant(name: str, folder: Path, size: int, workers: int) -> Timed | Bare:
    """The contestant ``name`` for one size and number of workers."""
    if name.startswith("bare"):
        return Bare(folder, size, workers, ThreadPoolExecutor if name == "bare-threads" else ProcessPoolExecutor)
    return Timed(lambda: LOADERS[name](folder, size, workers))


def memory(shards: Path, samples: int) -> list[float]:
    """Resident megabytes over an epoch of a shard set: 21 figures, the first after 40 batches."""
    import psutil

    from datamodules.shards import ShardData
    from datamodules.streaming.floats import to_float_images

    data = ShardData(str(shards), BATCH, crop="random_resized", flip=True, workers=2)
    batches = samples // BATCH
    times = {40 + (batches - 40) * part // 20 for part in range(21)}
    figures = []
    for number, batch in enumerate(data.train_dataloader(), 1):
        to_float_images(batch["image"])
        if number in times:
            figures.append(psutil.Process().memory_info().rss / 1e6)
        if number == batches:
            return figures
    raise AssertionError("the stream is endless")


def main() -> None:
    """Answers orders until the input ends."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    # Libraries print as they like; the answers have a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant, opened = None, None
    for line in sys.stdin:
        order = json.loads(line)
        if (order["size"], order["workers"]) != opened:
            contestant = None
            gc.collect()
            opened = (order["size"], order["workers"])
            contestant = open_contestant(name, folder, *opened)
        assert contestant is not None
        images, seconds = contestant.run(order["seconds"])
        print(json.dumps({"images": images, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
