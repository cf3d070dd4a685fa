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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from datamodules.latents import LatentSpec
from gesso.common.files import write_whole

FORMAT = 1
MANIFEST_NAME = "manifest.json"
SCHEMES = ("file", "http", "https", "pipe")
_ROWS_AT_A_TIME = 1 << 20

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
    """The shards of ``train``, ``val`` or ``test``, and the file name and checksum of their common index.

    ``class_counts``: samples of each class; None in a manifest of an older gesso, see ``Manifest.class_counts``.
    """

    shards: tuple[Shard, ...]
    index: str
    index_sha256: str
    class_counts: tuple[int, ...] | None = None

    @cached_property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A shard set.

    Args:
        root: folder of the manifest; relative names are resolved against it.
        name: a name for people.
        channels: 1 (grey) or 3 (RGB); of latents, their number.
        size: (height, width) in pixels when all images share one, else None; of latents, theirs.
        classes: class names; a sample's label indexes them. Empty when unlabelled.
        captions: whether samples carry captions.
        splits: split name -> its shards.
        segments: S, into how many parallel segments an epoch is cut (see ``order.py``). A property of the data set,
            never of the world size, so that every world size sees the same global batches; see ``default_segments``.
        provenance: how the set was made; free-form, for people and reports.
        latents: what its latents are; None: its samples are pictures.
    """

    root: Path
    name: str
    channels: int
    size: tuple[int, int] | None
    classes: tuple[str, ...]
    captions: bool
    splits: dict[str, Split]
    segments: int
    provenance: dict[str, Any] = field(default_factory=dict)
    latents: LatentSpec | None = None

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
            splits = {name: _split(entry) for name, entry in raw["splits"].items()}
            latents = raw.get("latents")
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
                latents=None if latents is None else LatentSpec.parsed(latents, raw["channels"]),
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
        if self.latents is None:
            del raw["latents"]
        else:
            raw["kind"] = "latent"
        file = self.root / MANIFEST_NAME
        write_whole(file, json.dumps(raw, indent=1))
        return file

    def resolve(self, url: str) -> str:
        """Absolute path or URL of a name in the manifest.

        Raises:
            ValueError: a relative name that would leave the manifest's folder, or a URL of another scheme.
        """
        scheme = urlparse(url).scheme if ":" in url else ""
        if scheme:
            # Exactly these: webdataset's opener knows other names, and spellings, of ways to run a command.
            if scheme not in SCHEMES or not url.startswith(f"{scheme}:"):
                raise ValueError(
                    f"{self.root / MANIFEST_NAME}: cannot read {url!r}; shards are files, or {', '.join(SCHEMES)} URLs"
                )
            return url
        if os.path.isabs(url):
            return url
        # By the letters alone: a network's file system would answer for one name after the other.
        path = os.path.normpath(url)
        if path == os.pardir or path.startswith(os.pardir + os.sep):
            raise ValueError(f"{self.root / MANIFEST_NAME}: {url!r} leaves the shard set's folder; refused")
        return os.path.join(self._folder, path)

    @cached_property
    def _folder(self) -> str:
        return os.path.abspath(self.root)

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

    def class_counts(self, split: str) -> tuple[int, ...]:
        """Samples of each class in a split.

        Of the manifest; where an older gesso wrote it, counted in the index, which reads all of that.

        Raises:
            ValueError: the index does not fit the manifest.
        """
        known = self.split(split).class_counts
        return count_classes(self.index(split), len(self.classes)) if known is None else known

    def unlabelled(self, split: str) -> int:
        """Number of a split's samples without a label; raises like ``class_counts``."""
        return self.split(split).samples - sum(self.class_counts(split))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Split name -> sha256 over its shards' checksums: the identity under which statistics are cached."""
        return {
            name: hashlib.sha256("".join(shard.sha256 for shard in split.shards).encode()).hexdigest()
            for name, split in self.splits.items()
        }


def default_segments(splits: Mapping[str, Split]) -> int:
    """Number of segments for a new shard set: one for 8 to 16 shards of its largest split, and 64 to 4,096.

    Each segment is read by one rank, or shared by several when there are more ranks than segments. So

    - many segments mix a batch from more places, and let many ranks each keep to few shards: of 10,000 shards, a node
      of 8 among 512 ranks fetches 158 in an epoch with the 1,024 segments that this gives, and 1,250 with 64; among
      2,048 ranks, 79 and 1,250;
    - but all segments together have about S (1 + window / samples per shard) shards in use, a fifth of these 10,000,
      which a single node must cache if they are remote; and at both ends of a segment two ranks share a shard.

    A power of two, since ranks that have no factor in common with S each read all segments. Never below 64: of few
    shards, each holds several segments.
    """
    eighth = max(len(split.shards) for split in splits.values()) // 8
    return min(max(64, 1 << max(0, eighth.bit_length() - 1)), 4096)


def count_classes(rows: np.ndarray, classes: int) -> tuple[int, ...]:
    """Samples of each of the classes 0 to ``classes`` - 1 in rows of an index; reads them in parts."""
    counts = np.zeros(classes, np.int64)
    for first in range(0, len(rows) if classes else 0, _ROWS_AT_A_TIME):
        labels = rows["label"][first : first + _ROWS_AT_A_TIME]
        counts += np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    return tuple(counts.tolist())


def _split(entry: dict[str, Any]) -> Split:
    shards = tuple(Shard(**shard) for shard in entry["shards"])
    counts = entry.get("class_counts")
    return Split(shards, entry["index"], entry["index_sha256"], None if counts is None else tuple(counts))


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise KeyError(f"{twice} is there twice")
    return found


def _problems(raw: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the numbers and texts of a manifest."""
    size, classes = raw["size"], raw["classes"]
    if raw.get("latents") is None and raw["channels"] not in (1, 3):
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
        yield from _wrong_counts(name, split, len(classes))


def _wrong_counts(name: str, split: dict[str, Any], classes: int) -> Iterator[str]:
    counts = split.get("class_counts")
    if counts is None:
        return
    if not isinstance(counts, list) or len(counts) != classes or not all(_whole(count, 0) for count in counts):
        yield f"split {name!r} has class_counts that are not {classes} whole numbers, one a class"
    elif sum(counts) > sum(shard["samples"] for shard in split["shards"]):
        yield f"split {name!r} has more samples in its class_counts than in its shards"


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def write_index(root: Path, split: str, shards: Sequence[Shard], rows: np.ndarray, *, classes: int) -> Split:
    """Writes ``<split>.index.npy`` atomically and returns the split's entry of the manifest.

    Args:
        rows: ``INDEX_DTYPE`` [samples], those of all shards in their order.
        classes: number of the set's classes.
    """
    file = root / f"{split}.index.npy"
    buffer = io.BytesIO()
    np.save(buffer, rows.astype(INDEX_DTYPE, copy=False))
    write_whole(file, buffer.getbuffer())
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    return Split(tuple(shards), file.name, digest, count_classes(rows, classes))
