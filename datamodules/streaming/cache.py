"""A node's cache of remote shards: complete, checked, shared by all ranks, bounded in size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from filelock import FileLock

from datamodules.assets.fetching import cache_folder, writing_to_cache
from datamodules.manifest import Shard
from gesso.common.files import replacing
from gesso.common.remote import open_remote

#: Environment variable: most gigabytes of shards that a node keeps.
LIMIT_VARIABLE = "GESSO_SHARD_CACHE_GB"
_DEFAULT_LIMIT_GB = 200.0
_FETCHES = 2  # of a shard whose bytes are not the manifest's
_CHUNK = 1 << 20
# A partial download this old belongs to a process that is gone.
_STALE_SECONDS = 24 * 3600


class ShardCache:
    """Fetches shards (http, https, pipe, gs, hf ...) into a folder.

    Files are named by their content, so that data sets and runs share them. The ones longest unused go first.

    Args:
        folder: default ``shards`` in gesso's cache folder (``GESSO_CACHE``).
        limit_bytes: default ``GESSO_SHARD_CACHE_GB`` (200). It should hold all shards that a shuffled stream reads at a
            time (see ``order.Order``), or each one is fetched many times in an epoch.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: float | None = None) -> None:
        self.folder = folder or cache_folder() / "shards"
        self.limit_bytes = _limit_from_environment() if limit_bytes is None else limit_bytes

    def find(self, shard: Shard) -> Path | None:
        """The local copy, marked as used, or None."""
        file = self._file(shard)
        try:
            os.utime(file)
        except FileNotFoundError:
            return None
        except OSError:  # a cache that others filled, read-only here
            return file if file.is_file() else None
        return file

    def fetch(self, shard: Shard, url: str) -> Path:
        """The local copy, downloaded if need be; other processes and threads that want it wait.

        Raises:
            OSError: it cannot be read or written.
            ValueError: what came is not what the manifest says.
        """
        known = self.find(shard)
        if known is not None:
            return known
        file = self._file(shard)
        with writing_to_cache(file.parent), FileLock(f"{file}.lock"):
            if not file.is_file():
                self._make_room(shard.bytes)
                _download(url, shard, file)
        return file

    def _file(self, shard: Shard) -> Path:
        return self.folder / shard.sha256[:2] / f"{shard.sha256}.tar"

    def _make_room(self, size: int) -> None:
        """Deletes the shards longest unused until ``size`` bytes fit. Files that are open stay readable."""
        with FileLock(self.folder / "evict.lock"):
            files = []
            for file in self.folder.glob("*/*.tar*"):
                if file.suffix == ".lock":
                    continue
                with contextlib.suppress(FileNotFoundError):  # another rank was faster
                    status = file.stat()
                    if file.suffix == ".partial" and time.time() - status.st_mtime > _STALE_SECONDS:
                        file.unlink()
                    else:
                        files.append((status.st_mtime, status.st_size, file))
            held = sum(file_size for _, file_size, _ in files)
            for _, file_size, file in sorted(files):
                if held + size <= self.limit_bytes:
                    break
                if file.suffix == ".tar":
                    file.unlink(missing_ok=True)
                    held -= file_size


def _download(url: str, shard: Shard, file: Path) -> None:
    """Downloads ``url`` to ``file``, complete and checked, or not at all."""
    with replacing(file) as partial:
        for _ in range(_FETCHES):
            found = _copy(url, partial)
            if found == (shard.bytes, shard.sha256):
                return
        raise ValueError(
            f"{url}: {found[0]} bytes with sha256 {found[1][:16]}..., the manifest says {shard.bytes} and "
            f"{shard.sha256[:16]}...; if the shard was replaced, run `gesso shards index` again"
        )


def _copy(url: str, partial: Path) -> tuple[int, str]:
    """Copies and returns the number of bytes and their sha256."""
    size, digest = 0, hashlib.sha256()
    with open_remote(url) as stream, partial.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _limit_from_environment() -> float:
    value = os.environ.get(LIMIT_VARIABLE, str(_DEFAULT_LIMIT_GB))
    try:
        return float(value) * 1e9
    except ValueError:
        raise ValueError(f"{LIMIT_VARIABLE}={value}: must be a number of gigabytes") from None
