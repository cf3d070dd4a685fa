"""Where a build takes its images from: a folder, a data set by name, tars: all are lists of byte ranges."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple, Protocol

import numpy as np

from datamodules.assets import named
from datamodules.assets.fetching import assets, fetch
from datamodules.building.tars import TarSample, TarScan, class_names
from datamodules.decoding.images import read_image
from gesso.common.files import replacing

#: File names that are taken for images; what is inside decides in the end.
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".avif",
    }
)


class Extent(NamedTuple):
    """A range of bytes of a local file; ``length`` -1 is its end."""

    file: str
    offset: int = 0
    length: int = -1

    def read(self) -> bytes:
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.length)


@dataclass(frozen=True)
class Item:
    """One candidate.

    Args:
        name: what reports call it; unique.
        image, caption: where they lie.
        label: its class's name.
        split: the split to which its authors gave it.
        version: changes when its file does.
    """

    name: str
    image: Extent
    label: str | None = None
    split: str | None = None
    caption: Extent | None = None
    version: str = ""


@dataclass(frozen=True)
class Skipped:
    """Something found among the images that is none by its name."""

    name: str


class Source(Protocol):
    """Gives candidates in a fixed order; workers call ``decode``, so it is small and can be pickled."""

    name: str
    #: Whether items know the split to which their authors gave them.
    official: bool
    #: What stands for this source when a build asks whether it is still the same.
    identity: str
    default_format: Literal["jpg", "png"]

    def items(self) -> Iterator[Item | Skipped]: ...

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray: ...

    def classes(self, found: set[str]) -> tuple[str, ...]: ...


def open_source(source: str | os.PathLike[str], scratch: Path) -> Source:
    """The source that ``source`` names: a folder, tars (path, glob, braces, URLs) or a data set.

    Args:
        scratch: where remote tars may be copied while the build runs.

    Raises:
        FileNotFoundError: there is no such folder, file or data set.
    """
    text = os.fspath(source)
    if Path(text).is_dir():
        return FolderSource(Path(text))
    known = [name for name, asset in assets().items() if asset.kind == "data"]
    if text in known and not Path(text).exists():
        folder = fetch(text)
        return NamedSource(text, folder) if text in named.CLASSES else FolderSource(folder)
    tars = expand_urls(text)
    if tars:
        return TarSource(text, tars, scratch)
    raise FileNotFoundError(
        f"{text}: no such folder or tar, and no data set of that name ({', '.join(known)} are known)"
    )


def expand_urls(text: str) -> list[str]:
    """URLs and paths that ``text`` stands for, after brace and glob expansion; sorted paths, none missing."""
    from braceexpand import braceexpand

    found: list[str] = []
    for part in braceexpand(text) if not text.startswith("pipe:") else [text]:
        if _is_remote(part):
            found.append(part)
        else:
            found += sorted(glob.glob(part.removeprefix("file:"), recursive=True))
    return found


def open_url(url: str) -> IO[bytes]:
    """Opens a tar for one reading from its start; remote ones through webdataset's opener."""
    if not _is_remote(url):
        return open(url.removeprefix("file:"), "rb")
    from webdataset.gopen import gopen

    return gopen(url)


def _is_remote(url: str) -> bool:
    return url.startswith("pipe:") or ("://" in url and not url.startswith("file:"))


class FolderSource:
    """Images at any depth. The first folder below the root is the class; the caption is a ``.txt`` of the same stem."""

    official = False
    default_format: Literal["jpg", "png"] = "jpg"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.resolve().name
        self.identity = f"folder {root.resolve()}"

    def items(self) -> Iterator[Item | Skipped]:
        """Sorted by path. Hidden files are passed over in silence; others that are no images by name are skipped."""
        seen: set[tuple[int, int]] = set()
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=_raise):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # links in a circle
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(folder).relative_to(self.root)
            label = _printable(inside.parts[0]) if inside.parts else None
            captions = {file for file in files if file.endswith(".txt")}
            for file in sorted(files):
                name = _printable((inside / file).as_posix())
                if file.startswith("."):
                    continue
                if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                    yield self._item(name, os.path.join(folder, file), label, captions)
                elif file not in captions:
                    yield Skipped(name)

    def _item(self, name: str, path: str, label: str | None, captions: set[str]) -> Item:
        stem = os.path.splitext(path)[0]
        caption = Extent(f"{stem}.txt") if f"{os.path.basename(stem)}.txt" in captions else None
        version = _version(path) + (_version(caption.file) if caption else "")
        return Item(name, Extent(path), label, caption=caption, version=version)

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return read_image(data, channels, min_size=min_size, max_pixels=max_pixels)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        return tuple(sorted(found))


class TarSource:
    """Samples of WebDataset tars. Remote tars are copied into ``scratch`` first: a build reads its images twice."""

    official = False
    default_format: Literal["jpg", "png"] = "jpg"

    def __init__(self, text: str, urls: list[str], scratch: Path) -> None:
        self.name = Path(urls[0]).name.split(".")[0].rstrip("0123456789-_") or "tars"
        self.identity = f"tars {text if any(map(_is_remote, urls)) else [os.path.abspath(url) for url in urls]}"
        self._urls = urls
        self._scratch = scratch

    def items(self) -> Iterator[Item | Skipped]:
        for number, url in enumerate(self._urls):
            path = self._copy(number, url) if _is_remote(url) else url.removeprefix("file:")
            version = _version(path)
            with open(path, "rb") as stream:
                for sample, _ in TarScan(stream, url):
                    yield self._item(url, path, sample, version)

    def _item(self, url: str, path: str, sample: TarSample, version: str) -> Item:
        caption = Extent(path, sample.caption_offset, sample.caption_length) if sample.caption_length else None
        image = Extent(path, sample.offset, sample.length)
        return Item(f"{url}/{sample.key}", image, sample.label, caption=caption, version=version)

    def _copy(self, number: int, url: str) -> str:
        path = self._scratch / f"{number:06d}.tar"
        if not path.is_file():
            self._scratch.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial, open_url(url) as stream, partial.open("wb") as out:
                while chunk := stream.read(1 << 20):
                    out.write(chunk)
        return str(path)

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return read_image(data, channels, min_size=min_size, max_pixels=max_pixels)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        return class_names(found)


class NamedSource:
    """A data set of ``assets.py``: raw pixels at fixed strides."""

    default_format: Literal["jpg", "png"] = "png"

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.identity = f"data set {name}"
        self._folder = folder
        self._layout = {
            part.file: (part.shape, part.planar) for part in named.records(name, folder)
        }  # without the labels: this goes to every worker
        self.official = all(part.split is not None for part in named.records(name, folder))

    def items(self) -> Iterator[Item | Skipped]:
        for part in named.records(self.name, self._folder):
            names = named.CLASSES[self.name]
            path = str(self._folder / part.file)
            length = int(np.prod(part.shape))
            for number, label in enumerate(part.labels.tolist()):
                extent = Extent(path, part.start + number * part.stride, length)
                yield Item(f"{part.file}/{number:05d}", extent, names[label], part.split)

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        (height, width, depth), planar = self._layout[os.path.basename(item.image.file)]
        flat = np.frombuffer(data, np.uint8)
        pixels = flat.reshape(depth, height, width).transpose(1, 2, 0) if planar else flat.reshape(height, width, depth)
        if channels in (None, depth):
            return np.ascontiguousarray(pixels)
        if depth == 1:
            return np.repeat(pixels, 3, axis=2)
        from PIL import Image

        return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]

    def classes(self, found: set[str]) -> tuple[str, ...]:
        return named.CLASSES[self.name]


def _raise(error: OSError) -> None:
    raise error


def _printable(name: str) -> str:
    """A file name as text, even where it is not."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _version(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns} "
