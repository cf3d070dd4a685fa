"""Small shard sets for the tests of the stream, written with nothing but tarfile."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datamodules.manifest import INDEX_DTYPE, Manifest, Shard, Split, default_segments


@dataclass
class Sample:
    """What goes into a tar: an image file, and what stands beside it."""

    data: bytes
    label: int = -1
    caption: str = ""


def numbered(number: int, size: int = 4) -> bytes:
    """A PNG whose pixels tell its number (up to 65,535): first channel the high byte, second the low byte."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = number >> 8, number & 255, 77
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def write_split(root: Path, split: str, shards: Sequence[Sequence[Sample]], urls: str = "{}") -> Split:
    """Writes the tars and the index of a split; ``urls`` turns a tar's name into what the manifest says."""
    root.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[int, ...]] = []
    entries = []
    for number, samples in enumerate(shards):
        file = root / f"{split}-{number:06d}.tar"
        with tarfile.open(file, "w") as tar:
            for key, sample in enumerate(samples):
                for extension, content in (("png", sample.data), ("txt", sample.caption.encode())):
                    if content:
                        info = tarfile.TarInfo(f"{key:06d}.{extension}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        with tarfile.open(file) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        for key, sample in enumerate(samples):
            image, text = places[f"{key:06d}.png"], places.get(f"{key:06d}.txt", (0, 0))
            rows.append((*image, sample.label, *text, key))
        content = file.read_bytes()
        entries.append(Shard(urls.format(file.name), len(samples), len(content), hashlib.sha256(content).hexdigest()))
    np.save(root / f"{split}.index.npy", np.array(rows, INDEX_DTYPE))
    digest = hashlib.sha256((root / f"{split}.index.npy").read_bytes()).hexdigest()
    return Split(tuple(entries), f"{split}.index.npy", digest)


def write_shards(root: Path, urls: str = "{}", **splits: Sequence[Sequence[Sample]]) -> Manifest:
    """A shard set of 3-channel images with the given splits; ``segments`` is 4, so that small sets have several."""
    samples = [sample for shards in splits.values() for shard in shards for sample in shard]
    image = cv2.imdecode(np.frombuffer(samples[0].data, np.uint8), cv2.IMREAD_COLOR)
    manifest = Manifest(
        root=root,
        name="test",
        channels=3,
        size=(image.shape[0], image.shape[1]),
        classes=tuple(f"class {label}" for label in range(max(sample.label for sample in samples) + 1)),
        captions=any(sample.caption for sample in samples),
        splits={name: write_split(root, name, shards, urls) for name, shards in splits.items()},
        segments=4,
    )
    manifest.save()
    return Manifest.load(root)


def in_shards(samples: Sequence[Sample], *sizes: int) -> list[list[Sample]]:
    """Deals samples to shards of the given sizes."""
    ends = np.cumsum(sizes)
    assert ends[-1] == len(samples)
    return [list(samples[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def large_set(root: Path, *, shards: int, samples_per_shard: int, classes: int = 1000) -> Manifest:
    """A set of any size without its tars; its index is a sparse file, which takes no room on the disk.

    The last hundredth of the samples has no label.
    """
    total = shards * samples_per_shard
    with (root / "train.index.npy").open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(INDEX_DTYPE), "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + total * INDEX_DTYPE.itemsize)
    entries = tuple(
        Shard(f"train-{number:05d}.tar", samples_per_shard, 30_000 * samples_per_shard, f"{number:064x}")
        for number in range(shards)
    )
    counts = (total * 99 // (100 * classes),) * classes
    splits = {"train": Split(entries, "train.index.npy", "0" * 64, counts)}
    names = tuple(f"class {number}" for number in range(classes))
    manifest = Manifest(root, "large", 3, (64, 64), names, False, splits, default_segments(splits))
    manifest.save()
    return manifest
