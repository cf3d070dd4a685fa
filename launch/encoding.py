"""Encodes a shard set of pictures with a trained autoencoder: the same set again, of latents."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.building.build import entries, exclusive, keeping_on_full_disk
from datamodules.building.journal import Journal
from datamodules.building.locations import open_url
from datamodules.building.progress import Bar
from datamodules.building.tars import LATENTS, ShardWriter, TarScan
from datamodules.latents import LatentSpec, packed
from datamodules.manifest import MANIFEST_NAME, Manifest, Shard, write_index
from datamodules.order import SequentialOrder
from datamodules.shards import ShardData
from datamodules.streaming.stream import ShardStream
from gesso.common.pixels import to_float
from launch.inference.loading import load_family
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.features import exact_float32

#: Where an unfinished encoding notes what it has done.
SCRATCH, JOURNAL = ".build", "journal.sqlite"


@dataclass(frozen=True)
class EncodingOptions:
    """Options of an encoding.

    Args:
        flips: encode each picture mirrored left to right as well.
        size: side in pixels of the squares to encode; None: the set's own.
        average: with the averaged weights, where there are any.
        batch_size: pictures at a time.
        device: of the autoencoder.
        workers: that decode pictures ahead.
    """

    flips: bool = False
    size: int | None = None
    average: bool = True
    batch_size: int = 32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 2


def encode(
    shards: str | os.PathLike[str],
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: EncodingOptions | None = None,
    *,
    progress: bool = True,
) -> Manifest:
    """Writes the latents of a shard set's pictures as a shard set: the same splits, shards, keys, labels and captions.

    An interrupted encoding goes on at the first shard that is not finished, when it is called again alike.

    Args:
        shards: the pictures' shard set.
        run: an autoencoder's run, checkpoint or exported file.
        out: a new or empty folder, or one with an unfinished encoding.
        options: see ``EncodingOptions``.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError, ValueError: no shard set of pictures, no autoencoder, or ``out`` holds something else.
        OSError: the disk is full; finished shards are kept.
    """
    options, folder = options or EncodingOptions(), Path(out)
    _check_free(folder)
    module, origin = load_family(run, average=options.average, device=options.device)
    module.require("encode")
    channels = module.batch_spec().channels
    data = ShardData(os.fspath(shards), size=options.size, channels=channels, workers=options.workers)
    if data.latents is not None:
        raise ValueError(f"{data.path}: holds latents already; name the shard set of pictures")
    with keeping_on_full_disk(folder), exclusive(folder), Bar(progress) as bar:
        return _Encoding(data, module, origin, folder, options, bar).run()


class _Encoding:
    """State and steps of one encoding."""

    def __init__(
        self,
        data: ShardData,
        module: ImageFamily,
        origin: dict[str, Any],
        folder: Path,
        options: EncodingOptions,
        bar: Bar,
    ) -> None:
        self.data, self.module, self.origin = data, module, origin
        self.folder, self.options, self.bar = folder, options, bar
        self.manifest = data.manifest
        self.checksum = module.encoder_checksum()
        what = {"encoder": self.checksum, "flips": options.flips, "size": data.size, "channels": data.channels}
        self.key = json.dumps(["latents", 1, self.manifest.fingerprints, what])

    def run(self) -> Manifest:
        file = self.folder / SCRATCH / JOURNAL
        journal = Journal(file)
        try:
            if journal.fact("key") not in (None, self.key):
                raise ValueError(
                    f"{self.folder}: holds an unfinished build of other pictures, of another encoder or with other "
                    "options; name a new folder, or remove it"
                )
            if journal.fact("key") is not None:
                self.bar.print(f"{self.folder}: going on with an interrupted encoding")
            journal.state("key", self.key)
            journal.commit()
            made = {split: self._split(journal, split) for split in self.manifest.splits}
            manifest = self._manifest(journal, made)
            manifest.save()  # last: a folder with a manifest is complete
        finally:
            journal.close()
        file.unlink()
        return manifest

    def _split(self, journal: Journal, split: str) -> list[tuple[Shard, np.ndarray]]:
        """Writes the shards of a split that are not there yet."""
        first, made = 0, []
        self.bar.start(f"encode {split}", self.manifest.split(split).samples)
        for number, source in enumerate(self.manifest.split(split).shards):
            path = self.folder / f"{split}-{number:05d}.tar"
            done = journal.finished(split, number)
            if done is None or not path.is_file() or path.stat().st_size != done[0].bytes:
                done = self._shard(journal, split, number, first, path)
            else:
                self.bar.advance(source.samples)
            made.append(done)
            first += source.samples
        return made

    def _shard(self, journal: Journal, split: str, number: int, first: int, path: Path) -> tuple[Shard, np.ndarray]:
        source = self.manifest.split(split).shards[number]
        keys, offsets = self._keys(source), self.manifest.index(split)["offset"]
        sums = _Sums()
        with ShardWriter(path) as shard:
            for batch in self._batches(split, first, first + source.samples):
                latents = self._latents(batch["image"])
                sums.add(latents)
                captions = batch.get("caption") or [""] * len(latents)
                rows = zip(batch["index"].tolist(), latents.numpy(), batch["label"].tolist(), captions, strict=True)
                for sample, own, label, caption in rows:
                    key = keys.get(int(offsets[sample]), f"{sample:09d}")
                    shard.add(key, packed(own), LATENTS[0], label, caption)
                self.bar.advance(len(latents))
            done = shard.finish()
        journal.state(f"sums {split} {number}", sums.text())
        journal.finish(split, number, *done)
        return done

    def _batches(self, split: str, start: int, stop: int) -> Iterator[Any]:
        stream = ShardStream(
            self.manifest,
            split,
            order=SequentialOrder(self.manifest.split(split).samples),
            batch_size=self.options.batch_size,
            augment=self.data.held_out_rows(),
            channels=self.data.channels,
            start=start,
            stop=stop,
            workers=self.options.workers,
        )
        return iter(stream)

    def _keys(self, source: Shard) -> dict[int, str]:
        """The samples' keys in the source's tar, by the offset of the picture."""
        url = self.manifest.resolve(source.url)
        with open_url(url) as stream:
            return {sample.offset: sample.key for sample, _ in TarScan(stream, url)}

    @torch.no_grad()
    def _latents(self, pictures: Tensor) -> Tensor:
        """float16 [n, V, 2C, h, w] of pictures uint8 [n, H, W, channels]."""
        images = to_float(pictures.to(self.options.device)).permute(0, 3, 1, 2)
        versions = []
        with exact_float32():
            for pictures_ in [images, images.flip(3)] if self.options.flips else [images]:
                mean, log_variance = self.module.encode(pictures_)
                versions.append(torch.cat([mean, (0.5 * log_variance).exp()], 1))
        latents = torch.stack(versions, 1).half().cpu()
        if not latents.isfinite().all():
            raise ValueError(f"{self.origin['path']}: its latents do not fit into 16 bits: its training has diverged")
        return latents

    def _manifest(self, journal: Journal, made: dict[str, list[tuple[Shard, np.ndarray]]]) -> Manifest:
        first = "train" if "train" in made else next(iter(made))
        sums = _Sums.of([journal.fact(f"sums {first} {number}") for number in range(len(made[first]))])
        mean, std = sums.moments()
        classes = len(self.manifest.classes)
        splits = {
            name: write_index(
                self.folder,
                name,
                [shard for shard, _ in done],
                np.concatenate([rows for _, rows in done]),
                classes=classes,
            )
            for name, done in made.items()
        }
        return Manifest(
            root=self.folder.resolve(),
            name=self.manifest.name,
            channels=len(mean),
            size=sums.size,
            classes=self.manifest.classes,
            captions=self.manifest.captions,
            splits=splits,
            # The order of the pictures is that of their latents.
            segments=self.manifest.segments,
            provenance={
                "source": os.path.abspath(self.data.path),
                "source_fingerprints": self.manifest.fingerprints,
                "autoencoder": os.path.abspath(self.origin["path"]),
                "images_seen": self.origin["images_seen"],
                "averaged": self.origin["average"],
                "gesso": version("gesso"),
                "key": sha256(self.key.encode()).hexdigest(),
            },
            latents=LatentSpec(self.checksum, self.options.flips, mean, std, self.data.size, self.data.channels),
        )


class _Sums:
    """Sums over latents, out of which come the mean and standard deviation of each channel.

    The variance of draws is that of the means, plus the mean of the posterior's variances.
    """

    def __init__(self) -> None:
        self.count = 0
        self.size = (0, 0)
        self.sums: list[list[float]] = []

    def add(self, latents: Tensor) -> None:
        """Adds float16 [n, V, 2C, h, w]."""
        values = latents.double().flatten(0, 1)
        mean, std = values.chunk(2, 1)
        found = torch.stack([mean.sum((0, 2, 3)), (mean.square() + std.square()).sum((0, 2, 3))])
        self.sums = (found.numpy() + np.array(self.sums) if self.sums else found.numpy()).tolist()
        self.count += len(values) * values.shape[2] * values.shape[3]
        self.size = (values.shape[2], values.shape[3])

    def text(self) -> str:
        """All of it; numbers come back to the last bit."""
        return json.dumps([self.count, self.size, self.sums])

    @classmethod
    def of(cls, texts: list[str | None]) -> _Sums:
        """The sum of several."""
        whole = cls()
        for text in texts:
            count, size, sums = json.loads(text or "")
            whole.count += count
            if count:
                whole.size = tuple(size)
                whole.sums = (np.array(whole.sums) + np.array(sums)).tolist() if whole.sums else sums
        return whole

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel."""
        means = [total / self.count for total in self.sums[0]]
        squares = [total / self.count for total in self.sums[1]]
        return tuple(means), tuple(math.sqrt(s - m * m) for m, s in zip(means, squares, strict=True))


def _check_free(folder: Path) -> None:
    """Raises a ValueError unless latents can be written to a folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the latents")
    if (folder / MANIFEST_NAME).exists():
        raise ValueError(f"{folder}: holds a finished shard set; name a new folder")
    if entries(folder) and not (folder / SCRATCH).exists():
        raise ValueError(f"{folder}: is not empty (there is {entries(folder)[0].name}); name a new folder")
