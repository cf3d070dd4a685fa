"""The data sets that gesso knows by name: how their files lie in the cache, and how a mirror's files become those.

Whatever the place they come from, the cache holds the same bytes (``assets.py`` checks their sums): MNIST's IDX
files and CIFAR-10's binary batches as their authors publish them, Fashion-MNIST as two IDX files.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.assets import emoji, sprites


@dataclass(frozen=True)
class Records:
    """Images of one shape that lie one after the other in ``file``, from byte ``start`` on, ``stride`` bytes apart.

    ``planar`` pixels lie [channel, row, column] in the file, others [row, column, channel].
    """

    file: str
    split: str | None
    start: int
    stride: int
    labels: np.ndarray
    shape: tuple[int, int, int]
    planar: bool = False


CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}

_CIFAR10_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def records(name: str, folder: Path) -> Iterator[Records]:
    """The images of data set ``name``, whose files are in ``folder``, in their official order."""
    if name == "cifar10":
        for batch in (*_CIFAR10_BATCHES, "test_batch"):
            labels = np.fromfile(folder / f"{batch}.bin", np.uint8)[:: 1 + 3072]
            yield Records(
                f"{batch}.bin",
                "test" if batch == "test_batch" else "train",
                1,
                1 + 3072,
                labels,
                (32, 32, 3),
                planar=True,
            )
        return
    parts: dict[str, str | None] = {"train": "train", "t10k": "test"} if name == "mnist" else {"all": None}
    for part, split in parts.items():
        labels = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
        yield Records(f"{part}-images-idx3-ubyte", split, 16, 784, labels, (28, 28, 1))


def gunzip(folder: Path) -> None:
    """Unpacks every ``.gz`` of ``folder`` in place."""
    for file in sorted(folder.glob("*.gz")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


def mnist_from_pickle(folder: Path) -> None:
    """``mnist.pkl.gz``, three pairs of arrays with grey levels k / 256, to the four official IDX files."""
    from gesso.common.pickles import load_arrays

    file = folder / "mnist.pkl.gz"
    train, validation, test = load_arrays(gzip.decompress(file.read_bytes()))
    # The pickle's authors cut the official training set into its first 50,000 and its last 10,000.
    official = [np.concatenate(pair) for pair in zip(train, validation, strict=True)]
    for part, (images, labels) in {"train": official, "t10k": test}.items():
        _write_idx(folder, part, np.rint(images * 256).astype(np.uint8), labels)
    file.unlink()


def base_emoji(folder: Path) -> None:
    """A vendor's pictures of all emoji and their list, to those without skin tones and a list of names."""
    emoji.keep_base_emoji(folder)


def sprite_factors(folder: Path) -> None:
    """The factors of all sprites, out of nothing."""
    sprites.write_factors(folder)


def fashion_mnist_from_json(folder: Path) -> None:
    """Ten JSON files, one a class, to two IDX files of all 70,000 images. (They no longer tell train from test.)"""
    images, labels = [], []
    for label in range(10):
        file = folder / f"{label}.json"
        # One of the files has two empty rows.
        rows = [row for row in json.loads(file.read_bytes())["data"] if row]
        images.append(np.array(rows, np.uint8))
        labels += [label] * len(rows)
        file.unlink()
    _write_idx(folder, "all", np.concatenate(images), np.array(labels))


def cifar10_from_png(folder: Path) -> None:
    """Sheets of 10,000 rows, each row an image's 1024 pixels, and JSON lists of labels, to the official batches."""
    from PIL import Image

    labels = {split: json.loads((folder / f"{split}_lables.json").read_bytes()) for split in ("train", "test")}
    rows = np.array(labels["train"] + labels["test"], np.uint8).reshape(6, 10_000, 1)
    for batch, label in zip((*_CIFAR10_BATCHES, "test_batch"), rows, strict=True):
        file = folder / f"{batch}.png"
        with Image.open(file) as sheet:
            pixels = np.asarray(sheet.convert("RGB")).transpose(0, 2, 1).reshape(10_000, 3072)
        np.concatenate([label, pixels], axis=1).tofile(folder / f"{batch}.bin")
        file.unlink()
    for split in labels:
        (folder / f"{split}_lables.json").unlink()


def _write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """LeCun's IDX format: magic number, big-endian lengths, bytes."""
    header = struct.pack(">IIII", 0x803, len(images), 28, 28)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 0x801, len(labels))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
