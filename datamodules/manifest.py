"""The manifest of a shard set: shards, sample counts, byte offsets, checksums.

A shard set is a folder with a ``manifest.json``, one ``<split>.index.npy`` per split, and (unless the shards stay
where they are, see ``gesso shards index``) the WebDataset tars themselves. Any WebDataset reader can read the tars;
gesso reads single samples out of them by the byte offsets of the index.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from gesso.common.files import write_whole

FORMAT = 1
MANIFEST_NAME = "manifest.json"
SCHEMES = ("file", "http", "https", "pipe")

#: One row per sample, in the order of the shards. Offsets count bytes from the start of the sample's own shard.
#: ``label`` is -1 where there is none; ``caption_length`` is 0 where there is none.
INDEX_DTYPE = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u4"),
        ("label", "<i4"),
        ("caption_offset", "<u8"),
        ("caption_length", "<u4"),
        ("key", "<u4"),  # ordinal of the sample inside its shard
    ]
)


@dataclass(frozen=True)
class Shard:
    """One tar. ``url`` is a file name relative to the manifest's folder, or an absolute path or URL."""

    url: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """The shards of ``train``, ``val`` or ``test``, and the file name and checksum of their common index."""

    shards: tuple[Shard, ...]
    index: str
    index_sha256: str

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A shard set.

    Args:
        root: folder of the manifest; relative names are resolved against it.
        name: a name for people.
        channels: 1 (grey) or 3 (RGB).
        size: (height, width) in pixels when all images share one, else None.
        classes: class names; a sample's label indexes them. Empty when unlabelled.
        captions: whether samples carry captions.
        splits: split name -> its shards.
        segments: S, into how many parallel segments an epoch is cut (see ``order.py``). A property of the data set,
            never of the world size; every world size that divides it sees the same global batches.
        provenance: how the set was made; free-form, for people and reports.
    """

    root: Path
    name: str
    channels: int
    size: tuple[int, int] | None
    classes: tuple[str, ...]
    captions: bool
    splits: dict[str, Split]
    segments: int = 64
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Reads ``path`` (a shard set's folder, or its manifest.json).

        Raises:
            FileNotFoundError: there is no manifest.
            ValueError: it is not a manifest of this format, or a name in it leaves its folder.
        """
        file = Path(path)
        if file.is_dir() or file.name != MANIFEST_NAME:
            file = file / MANIFEST_NAME
        if not file.is_file():
            raise FileNotFoundError(
                f"{file.parent}: no shard set here ({MANIFEST_NAME} is missing); make one with "
                f"`gesso shards build SOURCE {file.parent}`"
            )
        try:
            raw = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition)
            if raw["format"] != FORMAT:
                raise ValueError(f"{file}: shard-set format {raw['format']!r}, this gesso reads {FORMAT}")
            if problem := next(_problems(raw), None):
                raise ValueError(f"{file}: {problem}; build or index the set again")
            splits = {
                name: Split(tuple(Shard(**shard) for shard in split["shards"]), split["index"], split["index_sha256"])
                for name, split in raw["splits"].items()
            }
            manifest = cls(
                root=file.parent.resolve(),
                name=raw["name"],
                channels=raw["channels"],
                size=tuple(raw["size"]) if raw["size"] else None,
                classes=tuple(raw["classes"]),
                captions=raw["captions"],
                splits=splits,
                segments=raw["segments"],
                provenance=raw.get("provenance", {}),
            )
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not a shard-set manifest ({error!r}); build or index the set again") from error
        for split in splits.values():
            for name in (split.index, *(shard.url for shard in split.shards)):
                manifest.resolve(name)
        return manifest

    def save(self) -> Path:
        """Writes ``manifest.json`` atomically into ``root``."""
        raw = {"format": FORMAT, **asdict(self)}
        del raw["root"]
        file = self.root / MANIFEST_NAME
        write_whole(file, json.dumps(raw, indent=1))
        return file

    def resolve(self, url: str) -> str:
        """Absolute path or URL of a name in the manifest.

        Raises:
            ValueError: a relative name that would leave the manifest's folder, or a URL of another scheme.
        """
        scheme = urlparse(url).scheme
        if scheme:
            # Exactly these: webdataset's opener knows other names, and spellings, of ways to run a command.
            if scheme not in SCHEMES or not url.startswith(f"{scheme}:"):
                raise ValueError(
                    f"{self.root / MANIFEST_NAME}: cannot read {url!r}; shards are files, or {', '.join(SCHEMES)} URLs"
                )
            return url
        if os.path.isabs(url):
            return url
        path = (self.root / url).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"{self.root / MANIFEST_NAME}: {url!r} leaves the shard set's folder; refused")
        return str(path)

    def split(self, name: str) -> Split:
        """The split ``name``, or a ValueError that lists those there are."""
        try:
            return self.splits[name]
        except KeyError:
            raise ValueError(f"{self.root}: no split {name!r}; it has {', '.join(sorted(self.splits))}") from None

    def index(self, split: str) -> np.ndarray:
        """Memory-mapped index of a split: one ``INDEX_DTYPE`` row per sample, read-only.

        Raises:
            ValueError: the index does not fit the manifest.
        """
        file = self.resolve(self.split(split).index)
        try:
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: unreadable index ({error}); run `gesso shards verify {self.root}`") from error
        if rows.dtype != INDEX_DTYPE or len(rows) != self.split(split).samples:
            raise ValueError(f"{file}: index does not fit its manifest; build or index the set again")
        return rows

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Split name -> sha256 over its shards' checksums: the identity under which statistics are cached."""
        return {
            name: hashlib.sha256("".join(shard.sha256 for shard in split.shards).encode()).hexdigest()
            for name, split in self.splits.items()
        }


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise KeyError(f"{twice} is there twice")
    return found


def _problems(raw: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the numbers and texts of a manifest."""
    size, classes = raw["size"], raw["classes"]
    if raw["channels"] not in (1, 3):
        yield f"channels is {raw['channels']!r}, and 1 or 3 can be"
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(_whole(side, 1) for side in size)):
        yield f"size is {size!r}, and is none or two whole numbers"
    if not _whole(raw["segments"], 1):
        yield f"segments is {raw['segments']!r}, and is a whole number of 1 or more"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        yield "classes is no list of texts"
    if not isinstance(raw["splits"], dict) or not raw["splits"]:
        yield "splits maps no names to shards"
        return
    for name, split in raw["splits"].items():
        for shard in split["shards"]:
            for key in ("samples", "bytes"):
                if not _whole(shard[key], 0):
                    yield f"split {name!r} has a shard of {shard[key]!r} {key}"
        if not any(shard["samples"] for shard in split["shards"]):
            yield f"split {name!r} has no samples"


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def write_index(root: Path, split: str, shards: Sequence[Shard], rows: np.ndarray) -> Split:
    """Writes ``<split>.index.npy`` atomically and returns the split's entry of the manifest.

    Args:
        rows: ``INDEX_DTYPE`` [samples], those of all shards in their order.
    """
    file = root / f"{split}.index.npy"
    buffer = io.BytesIO()
    np.save(buffer, rows.astype(INDEX_DTYPE, copy=False))
    write_whole(file, buffer.getbuffer())
    return Split(tuple(shards), file.name, hashlib.sha256(buffer.getbuffer()).hexdigest())
