"""Builds shards from images in two passes: parallel, resumable, and with the same bytes after any interruption.

The first pass decodes every candidate and computes the digest of its pixels. It finds broken images and duplicates; the
digest alone decides an image's split (so adding images moves none) and its place in the split (so shards are shuffled).
The second pass writes the shards.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from datamodules.building.candidates import Source
from datamodules.building.journal import Journal, fingerprint, read_item
from datamodules.building.options import SPLITS, BuildOptions, completed, shares
from datamodules.building.pool import Pool
from datamodules.building.progress import Bar
from datamodules.building.report import write_report
from datamodules.building.samples import examine, render
from datamodules.building.sources import open_source
from datamodules.building.tars import ShardWriter
from datamodules.decoding.images import resized_size
from datamodules.manifest import MANIFEST_NAME, Manifest, Shard, Split, default_segments, write_index

#: Files that a build writes, and may remove when it starts again.
_OURS = re.compile(
    r"\.?((train|val|test)(-\d{5,}\.tar(\.partial)?|\.index\.npy)|report\.(json|txt)|manifest\.json|contact_sheet\.png)"
    r"(\.[0-9a-f]{8}\.partial)?"
)
_CHUNK = 32  # images that a worker takes at a time


def build(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Builds a shard set from ``source`` in the folder ``out``.

    The same source and options give the same bytes, for any number of workers and interruptions; an interrupted build
    continues where it stopped. ``report.json`` and ``report.txt`` list what was dropped, and why.

    Args:
        source: a folder of images, tars (path, glob, braces, URLs), or the name of a data set.
        out: a new or empty folder, or one with an unfinished build.
        workers: processes; None: one per processor.
        overwrite: whether a finished shard set of another source or with other options may be replaced.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: no such source.
        ValueError: a source without images, a folder with other files, a truncated tar.
        OSError: the disk is full; finished shards are kept.
    """
    options = options or BuildOptions()
    folder = Path(out)
    _check_target(folder)
    scratch = folder / ".build"
    opened = open_source(source, scratch / "tars", folder)
    options = completed(options, opened)
    if entries(folder) and not (folder / MANIFEST_NAME).exists() and not scratch.exists():
        raise ValueError(
            f"{folder}: is not empty (there is {entries(folder)[0].name}) and no shard set; name a new folder"
        )
    with (
        keeping_on_full_disk(folder),
        exclusive(folder),
        Bar(progress) as bar,
        Pool(workers or os.cpu_count() or 1) as pool,
    ):
        return _Build(opened, folder, options, pool, bar).run(overwrite)


class _Build:
    """State and steps of one build."""

    def __init__(self, source: Source, folder: Path, options: BuildOptions, pool: Pool, bar: Bar) -> None:
        self.source = source
        self.folder = folder
        self.options = options
        self.pool = pool
        self.bar = bar
        self.key = json.dumps([2, source.identity, asdict(options)])
        self.scratch = folder / ".build"

    def run(self, overwrite: bool) -> Manifest:
        if (self.folder / MANIFEST_NAME).exists():
            done = self._finished(overwrite)
            if done is not None:
                return done
        journal = Journal(self.scratch / "journal.sqlite")
        resumable = True
        try:
            manifest = self._make(journal)
            resumable = False
            return manifest
        except ValueError:  # the source is at fault: going on would not help
            resumable = False
            raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # a full disk, say
                raise
            raise RuntimeError(
                f"{self.scratch / 'journal.sqlite'}: damaged ({error}); remove {self.scratch} and run the same "
                "command again"
            ) from error
        finally:
            journal.close()
            if not resumable:
                (self.scratch / "journal.sqlite").unlink()
                shutil.rmtree(self.scratch / "tars", ignore_errors=True)

    def _make(self, journal: Journal) -> Manifest:
        self._list(journal)
        self._scan(journal)
        names = self._classes(journal)
        channels = self.options.channels or max(journal.channels())
        splits = {name: self._write(journal, name, channels, names) for name in self._splits(journal)}
        manifest = self._manifest(journal, channels, names, splits)
        write_report(manifest, journal, self.source.remarks)
        manifest.save()  # last: a folder with a manifest is complete
        return manifest

    def _finished(self, overwrite: bool) -> Manifest | None:
        """The finished shard set in ``out``, if it has this source and options; None: it is to be replaced."""
        manifest = Manifest.load(self.folder)
        if "key" not in manifest.provenance:
            raise ValueError(f"{self.folder}: holds an index of shards that lie elsewhere; name another folder")
        same = manifest.provenance["key"] == hashlib.sha256(self.key.encode()).hexdigest()
        if same and all(
            os.path.isfile(file) and os.path.getsize(file) == shard.bytes
            for split in manifest.splits.values()
            for shard in split.shards
            for file in [manifest.resolve(shard.url)]
        ):
            self.bar.start("list", None)
            if manifest.provenance["listing"] == fingerprint(self.source.items()):
                self.bar.print(f"{self.folder}: already built; nothing to do")
                return manifest
        if not overwrite:
            raise ValueError(
                f"{self.folder}: holds a finished shard set of another source, state of it, or options; name another "
                "folder or add --overwrite"
            )
        self._remove_shards()
        return None

    def _list(self, journal: Journal) -> None:
        """Records the candidates, unless an interrupted build has, and the source is unchanged."""
        self.bar.start("list", None)
        if journal.fact("key") is not None:
            if journal.fact("key") == self.key and journal.fact("listing") == fingerprint(self.source.items()):
                self.bar.print(f"{self.folder}: going on with an interrupted build")
                return
            self.bar.print(
                f"{self.folder}: the source or the options changed since the interrupted build: starting anew"
            )
            self._remove_shards()
            journal.clear()
        listing = journal.record_candidates(self.source.items())
        journal.state("key", self.key)
        journal.state("listing", listing)
        journal.commit()

    def _scan(self, journal: Journal) -> None:
        self.bar.start("scan", journal.unscanned())
        work = partial(examine, self.source, self.options)
        for results in self.pool.map(work, journal.to_scan(_CHUNK)):
            journal.found(results)
            self.bar.advance(len(results))
            if self.bar.due():
                journal.commit()
        by_content = shares(self.options.splits or "official")
        if by_content is not None:
            if not self.options.keep_duplicates:
                journal.drop_duplicates(captions=self.options.captions)
            journal.split_by_digest(by_content)
        journal.commit()
        if not journal.kept():
            reasons = ", ".join(f"{count} {reason}" for reason, count in journal.dropped_by_reason().items())
            example = next((f": {name} {detail}".rstrip() for name, _, detail in journal.dropped()), "")
            tars = "; its tars are read as 'FOLDER/*.tar'" if example.endswith(".tar") else ""
            raise ValueError(f"{self.source.identity}: no image to keep ({(reasons or 'it is empty') + example}{tars})")

    def _splits(self, journal: Journal) -> list[str]:
        """The splits that have images: with few images, a small split may have none."""
        asked = SPLITS if self.options.splits == "official" else shares(self.options.splits or "") or SPLITS
        there = [name for name in asked if journal.kept(name)]
        there_are = _how_many(journal)
        if "train" not in there:
            raise ValueError(f"{self.source.name}: no image fell into train: {there_are}; --splits 100 puts all there")
        for name in sorted(set(asked) - set(there)) if self.options.splits != "official" else ():
            self.bar.print(f"{self.folder}: no image fell into {name}: {there_are}")
        return there

    def _classes(self, journal: Journal) -> tuple[str, ...]:
        found = set(journal.labels())
        return self.source.classes(found) if self.options.classes and found else ()

    def _write(self, journal: Journal, split: str, channels: int, names: tuple[str, ...]) -> Split:
        """Writes the missing shards of a split, and its index."""
        size = self.options.samples_per_shard
        self.bar.start(f"write {split}", journal.kept(split))
        shards, indices = [], []
        for number, items in enumerate(journal.samples(split, size)):
            path = self.folder / f"{split}-{number:05d}.tar"
            done = journal.finished(split, number)
            if done is None or not path.is_file() or path.stat().st_size != done[0].bytes:
                done = self._write_shard(path, items, number * size, channels, names)
                journal.finish(split, number, *done)
            else:
                self.bar.advance(done[0].samples)
            shards.append(done[0])
            indices.append(done[1])
        return write_index(self.folder, split, shards, np.concatenate(indices), classes=len(names))

    def _write_shard(
        self, path: Path, items: list[str], start: int, channels: int, names: tuple[str, ...]
    ) -> tuple[Shard, np.ndarray]:
        labels = {name: number for number, name in enumerate(names)}
        work = partial(render, self.source, self.options, channels)
        chunks = ([read_item(text) for text in items[first : first + _CHUNK]] for first in range(0, len(items), _CHUNK))
        extension = str(self.options.format)
        with ShardWriter(path) as shard:
            ordinal = start
            for chunk in self.pool.map(work, chunks):
                for image, label, caption in chunk:
                    shard.add(f"{ordinal:09d}", image, extension, labels.get(label or "", -1), caption)
                    ordinal += 1
                self.bar.advance(len(chunk))
            return shard.finish()

    def _manifest(self, journal: Journal, channels: int, names: tuple[str, ...], splits: dict[str, Split]) -> Manifest:
        sizes, size = journal.sizes(), self.options.size
        if size is not None:
            sizes = sorted({resized_size(*one, size, self.options.resize) for one in sizes})
        indices = (np.load(self.folder / split.index, mmap_mode="r") for split in splits.values())
        return Manifest(
            root=self.folder.resolve(),
            name=self.source.name,
            channels=channels,
            size=sizes[0] if len(sizes) == 1 else None,
            classes=names,
            captions=any(bool((index["caption_length"] > 0).any()) for index in indices),
            splits=splits,
            segments=default_segments(splits),
            provenance={
                "source": self.source.identity,
                "options": asdict(self.options),
                "gesso": version("gesso"),
                "key": hashlib.sha256(self.key.encode()).hexdigest(),
                "listing": journal.fact("listing"),
            },
        )

    def _remove_shards(self) -> None:
        for path in entries(self.folder):
            if _OURS.fullmatch(path.name):
                path.unlink()


def _how_many(journal: Journal) -> str:
    """How many images there are to deal to splits, and why there are not more."""
    kept, alike = journal.kept(), journal.duplicates()
    found = f"there {'is' if kept == 1 else 'are'} only {kept:,}"
    dropped = journal.dropped_by_reason()
    if dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        keep = ", which --keep-duplicates keeps" if list(dropped) == ["duplicate"] else ""
        found += f" ({reasons} left out{keep})"
    return found + (f", of which {kept - alike:,} differ: those with the same pixels go together" if alike else "")


def _check_target(folder: Path) -> None:
    """Checks that a folder can be created at a path.

    Raises:
        ValueError: it cannot; names what is there.
    """
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise ValueError(f"{place}: is a link to nothing; name a folder for the shards")
        if os.path.exists(place):
            if not place.is_dir():
                raise ValueError(f"{place}: is a file; name a folder for the shards")
            return


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Context manager: locks the folder for one build; removes it afterwards if it is empty."""
    scratch = folder / ".build"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(scratch / "lock", timeout=0):
            try:
                yield
            finally:
                if [path.name for path in entries(scratch)] == ["lock"]:
                    shutil.rmtree(scratch)
    except Timeout:
        raise ValueError(f"{folder}: another build is at work in it; wait for it or name another folder") from None
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def keeping_on_full_disk(folder: Path) -> Iterator[None]:
    """Context manager: raises a full disk as one line; finished shards stay, and the same command continues.

    A quota, and a limit on the size of files, are such disks, too.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
            what, remedy = "the disk is full", "free space"
        elif number == errno.EFBIG:
            what, remedy = "a file grows larger than it may (see `ulimit -f`)", "raise that limit"
        elif isinstance(error, sqlite3.OperationalError) and "disk I/O error" in str(error):
            what, remedy = "its .build/journal.sqlite: disk I/O error", "look at the disk and `ulimit -f`,"
        else:
            raise
        raise OSError(f"{folder}: {what}; finished shards are kept: {remedy} and run the same command again") from error
