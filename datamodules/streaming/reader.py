"""Reads single samples out of shards, by the byte offsets of the index."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datamodules.manifest import Manifest, Shard
from datamodules.streaming.cache import ShardCache
from gesso.common.remote import is_remote, local_path
from gesso.common.text import decode_text

# Open at a time; the usual limit of a process is 1024, and others of its files need room as well.
_MAX_OPEN = 256
_DOWNLOADS = 8

#: The number of a shard, an offset in it, and a length, in bytes.
Span = tuple[int, int, int]


class _Descriptor:
    """An open file that is closed with its last reference."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound, for at exit modules are gone
        if self.number >= 0:
            close(self.number)


class ShardReader:
    """Random access to one split's samples; safe in threads.

    Reads by ``pread``: from the page cache it costs 3.4 µs for 21 kB where a memory map costs 1.7, of some 300 for a
    sample, but mapped pages would count as the process's memory, a whole shard set in an epoch. From a fast disk it
    takes 123 µs, and 36 where the kernel was asked for it ahead (``prepare``).

    Args:
        manifest: the shard set.
        split: ``train``, ``val`` ...
        allow_pipe: whether ``pipe:`` shards may run their commands.
        cache: where copies of remote shards go.

    Raises:
        ValueError: see ``check_pipes`` and ``Manifest.index``.
    """

    def __init__(
        self, manifest: Manifest, split: str, *, allow_pipe: bool = False, cache: ShardCache | None = None
    ) -> None:
        check_pipes(manifest, split, allow_pipe)
        self._shards = manifest.split(split).shards
        self._urls = [manifest.resolve(shard.url) for shard in self._shards]
        self._remote = any(map(is_remote, self._urls))
        self._cache = cache
        self._ends = np.cumsum([shard.samples for shard in self._shards])
        self._root = manifest.root
        self.index = np.asarray(manifest.index(split))  # np.memmap's own indexing is slow
        self._files: dict[int, _Descriptor] = {}
        self._lock = threading.Lock()

    def prepare(self, samples: np.ndarray) -> list[Span]:
        """Prefetches the images of ``samples``: downloads remote shards, and reads bytes into the page cache.

        Raises like ``read``, but for what only reading shows.

        Returns:
            where each of them lies, for ``read``.
        """
        spans = self._spans(samples, "offset", "length")
        if self._remote:
            with self._lock:
                missing = {shard for shard, _, _ in spans} - self._files.keys()
            if missing:
                with ThreadPoolExecutor(_DOWNLOADS) as pool:
                    list(pool.map(self._path, sorted(missing)))
        for shard, offset, length in spans:
            file = self._open(shard)  # held, lest another thread that opens it as well close this one
            _read_ahead(file.number, offset, length)
        return spans

    def image(self, sample: int) -> bytes:
        """One sample's image file; raises like ``read``."""
        return self.read(self._spans(np.array([sample]), "offset", "length")[0])

    def captions(self, samples: np.ndarray) -> list[str]:
        """The samples' captions, empty where there is none or it is no text; raises like ``read``."""
        spans = self._spans(samples, "caption_offset", "caption_length")
        return [(decode_text(self.read(span)) or "").strip() for span in spans]

    def where(self, sample: int) -> str:
        """The sample's place, for messages."""
        shard, offset, _ = self._spans(np.array([sample]), "offset", "length")[0]
        return f"{self._urls[shard]}, byte {offset}"

    def read(self, span: Span) -> bytes:
        """The bytes there.

        Raises:
            ValueError: the shard is not as long as the manifest says.
            FileNotFoundError: it is missing.
            OSError: it cannot be fetched or read.
        """
        shard, offset, length = span
        file = self._open(shard)
        data = os.pread(file.number, length, offset)
        if len(data) < length:
            raise ValueError(
                f"{self._urls[shard]}: truncated: the sample at byte {offset} needs {length} bytes and the file ends "
                f"after {os.fstat(file.number).st_size} of {self._shards[shard].bytes}; copy or build it again "
                f"(`gesso shards verify {self._root}` finds all such)"
            )
        return data

    def _spans(self, samples: np.ndarray, offset: str, length: str) -> list[Span]:
        """The location of those parts of samples that have these columns in the index."""
        rows = self.index[samples]
        shards = np.searchsorted(self._ends, samples, side="right")
        return list(zip(shards.tolist(), rows[offset].tolist(), rows[length].tolist(), strict=True))

    def _open(self, shard: int) -> _Descriptor:
        """The shard's file. One that drops out of the table stays open for as long as someone reads it."""
        # Twice for each sample: so without the lock, and the file opened first makes room, not the one unused longest.
        file = self._files.get(shard)
        if file is None:
            file = self._open_new(shard)
            with self._lock:
                file = self._files.setdefault(shard, file)
                while len(self._files) > _MAX_OPEN:
                    del self._files[next(iter(self._files))]
        return file

    def _open_new(self, shard: int) -> _Descriptor:
        path = self._path(shard)
        try:
            file = _Descriptor(path)
        except FileNotFoundError:
            if local_path(self._urls[shard]) is None:
                return _Descriptor(self._path(shard))  # evicted just now
            raise _missing(path, self._root) from None
        check_size(self._shards[shard], path, os.fstat(file.number).st_size, self._root)
        return file

    def _path(self, shard: int) -> Path:
        local = local_path(self._urls[shard])
        if local is not None:
            return local
        with self._lock:
            self._cache = self._cache or ShardCache()
        return self._cache.fetch(self._shards[shard], self._urls[shard])


def check_size(shard: Shard, path: Path, size: int, root: Path) -> None:
    """Checks that a shard's file is as long as the manifest says: an index points into the file that it was made of.

    Args:
        shard: its entry of the manifest.
        path: the file.
        size: its length in bytes.
        root: folder of the shard set.

    Raises:
        ValueError: it is shorter or longer; names the file and both lengths.
    """
    if size == shard.bytes:
        return
    what = f"truncated: it ends at byte {size}" if size < shard.bytes else f"replaced: it has {size} bytes"
    raise ValueError(
        f"{path}: {what}, and the manifest says {shard.bytes}; copy or build it again (`gesso shards verify {root}` "
        "finds all such)"
    )


def check_sizes(manifest: Manifest, split: str) -> None:
    """Checks the lengths of a split's shards that are files here; asks the file system once for each.

    Raises:
        ValueError: one is not as long as the manifest says; names it.
        FileNotFoundError: one is missing.
    """
    for shard in manifest.split(split).shards:
        if (path := local_path(manifest.resolve(shard.url))) is not None:
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise _missing(path, manifest.root) from None
            check_size(shard, path, size, manifest.root)


def _missing(path: Path, root: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path}: this shard is missing; copy or build it again (`gesso shards verify {root}`)")


def check_pipes(manifest: Manifest, split: str, allow_pipe: bool) -> None:
    """Refuses commands in a manifest, since it may come from a stranger.

    Raises:
        ValueError: the split has ``pipe:`` shards and ``allow_pipe`` is not set.
    """
    pipes = [shard.url for shard in manifest.split(split).shards if shard.url.startswith("pipe:")]
    if pipes and not allow_pipe:
        raise ValueError(
            f"{manifest.root}: reading this shard set runs commands, the first is {pipes[0][5:]!r}; "
            "if you trust it, set --data.allow_pipe true (gesso.stream: allow_pipe=True)"
        )


def _read_ahead(file: int, offset: int, length: int) -> None:
    """Asks the kernel to read a part of a file ahead; does not wait."""
    if hasattr(os, "posix_fadvise"):  # Linux has it, macOS has not
        os.posix_fadvise(file, offset, length, os.POSIX_FADV_WILLNEED)
