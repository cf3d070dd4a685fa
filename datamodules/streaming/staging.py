"""Copies of shards on a node's own disk: those that its ranks will read, and no others.

A staged set is a shard set like any other, with the same checksums; the shards that were not copied are named in it by
where they really are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.manifest import MANIFEST_NAME, Manifest, Shard, Split
from datamodules.order import SampleOrder
from gesso.common.files import replacing

#: Environment variable with the folder that `gesso slurm stage` copies into.
STAGED = "GESSO_STAGED"
_CHUNK = 1 << 18


def shards_read(
    manifest: Manifest, order: SampleOrder, ranks: Collection[int], world_size: int, start: int, stop: int
) -> list[int]:
    """Numbers of the training shards that some ranks read from position ``start`` to before ``stop``.

    Args:
        order: which sample stands at which position.
        ranks: those of one node.
    """
    sizes = [shard.samples for shard in manifest.split("train").shards]
    ends = np.cumsum(sizes)
    found: set[int] = set()
    for first in range(start, stop, _CHUNK):
        positions = np.arange(first, min(first + _CHUNK, stop))
        positions = positions[np.isin(positions % world_size, list(ranks))]
        found.update(np.unique(np.searchsorted(ends, order.locate(positions), side="right")).tolist())
        if len(found) == len(sizes):
            break
    return sorted(found)


def stage(
    manifest: Manifest, folder: Path, shards: Collection[int], *, progress: Callable[[int], None] = lambda size: None
) -> Manifest:
    """Copies training shards to ``folder``, where it has them not yet, and writes a manifest that names the copies.

    Args:
        shards: their numbers.
        progress: called with the bytes of each shard that is there.

    Raises:
        OSError: the disk is full; what was copied stays, and is found again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = manifest.split("train").shards
    for number in shards:
        # What is fetched from elsewhere has a cache of its own.
        if os.path.isabs(source := manifest.resolve(train[number].url)):
            _copy(Path(source), folder / _name(train[number]), train[number].bytes)
        progress(train[number].bytes)
    splits = {}
    for name, split in manifest.splits.items():
        entries = [replace(shard, url=manifest.resolve(shard.url)) for shard in split.shards]
        if name == "train":
            # Also those of other jobs.
            entries = [replace(s, url=_name(s)) if _is_whole(folder / _name(s), s.bytes) else s for s in entries]
        splits[name] = Split(tuple(entries), manifest.resolve(split.index), split.index_sha256)
    staged = replace(manifest, root=folder, splits=splits)
    staged.save()
    return staged


def _name(shard: Shard) -> str:
    return f"{shard.sha256[:16]}.tar"


def _is_whole(copy: Path, size: int) -> bool:
    return copy.is_file() and copy.stat().st_size == size


def _copy(source: Path, copy: Path, size: int) -> None:
    if _is_whole(copy, size):
        return
    with replacing(copy) as partial:
        shutil.copyfile(source, partial)


def staged_folder(manifest: Manifest, root: str | os.PathLike[str]) -> Path:
    """The folder of a set's copies below ``root``, named by its contents, so that all jobs on a node share them."""
    return Path(root) / f"gesso-{manifest.fingerprints['train'][:20]}"


def nearest(manifest: Manifest) -> Manifest:
    """The staged copy of a set, where this node has one of the same contents; else the set itself."""
    root = os.environ.get(STAGED)
    if not root or "train" not in manifest.splits:
        return manifest
    folder = staged_folder(manifest, root)
    if not (folder / MANIFEST_NAME).is_file():
        return manifest
    copy = Manifest.load(folder)
    same = (copy.fingerprints, copy.segments) == (manifest.fingerprints, manifest.segments)
    return copy if same else manifest
