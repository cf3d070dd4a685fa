"""Sources of a build: a folder, a zip, a data set by name, or tars; each is a list of byte ranges."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.assets import emoji, named, sprites, tinted
from datamodules.assets.fetching import assets, fetch
from datamodules.building.candidates import Extent, Item, Skipped, Source, file_version, hidden_remark
from datamodules.building.folders import FolderSource, ZipSource, is_zip
from datamodules.building.labels import class_names, mixed_remark
from datamodules.building.locations import expand_urls, has_magic, open_url
from datamodules.building.tars import LeftOut, TarSample, TarScan, unpacker
from datamodules.decoding.images import read_image
from gesso.common.files import replacing
from gesso.common.remote import is_remote
from gesso.common.text import printable

_UNPACK: dict[str, Callable[[Path], Any]] = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}


def open_source(source: str | os.PathLike[str], scratch: Path, out: Path | None = None) -> Source:
    """Opens a source: a folder, a zip, tars (path, glob, braces, URLs) or a data set.

    Args:
        scratch: folder for copies of remote or compressed tars during the build.
        out: folder of the shards, which is not part of the source.

    Raises:
        FileNotFoundError: there is no such folder, file or data set.
        ValueError: the source is no regular file, or lies in ``out``.
    """
    text = os.fspath(source)
    path = Path(text)
    if path.is_dir():
        if out is not None and out.is_dir() and path.samefile(out):
            raise ValueError(f"{text}: is both source and target; name a new folder for the shards")
        return FolderSource(path, without=out)
    if path.is_file() and is_zip(path):
        return ZipSource(path)
    if text in tinted.PALETTES and not path.exists():
        return TintedSource(text, fetch(tinted.GARMENTS))
    known = [name for name, asset in assets().items() if asset.kind == "data"]
    if text in known and not path.exists():
        folder = fetch(text)
        if text in emoji.VENDORS:
            return EmojiSource(text, folder)
        if text == SpriteSource.name:
            return SpriteSource(folder)
        return NamedSource(text, folder) if text in named.CLASSES else FolderSource(folder)
    if not (os.path.lexists(text) or has_magic(text) or is_remote(text) or text.startswith("file:")):
        names = ", ".join([*known, *tinted.PALETTES])
        raise FileNotFoundError(f"{text}: no such folder or tar, and no data set of that name ({names} are known)")
    return TarSource(text, expand_urls(text), scratch)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


class TarSource:
    """Samples of WebDataset tars. Remote and compressed ones are copied to ``scratch`` first: images are read twice."""

    official = False
    default_format: Literal["jpg", "png"] = "jpg"

    def __init__(self, text: str, urls: list[str], scratch: Path) -> None:
        self.name = printable(Path(urls[0]).name.split(".")[0].rstrip("0123456789-_") or "tars")
        self.identity = f"tars {text if any(map(is_remote, urls)) else [os.path.abspath(url) for url in urls]}"
        self.remarks: list[str] = []
        self._urls = urls
        self._scratch = scratch

    def items(self) -> Iterator[Item | Skipped]:
        hidden = 0
        remarks: list[str] = []
        for number, url in enumerate(self._urls):
            path, version = self._local(number, url)
            with open(path, "rb") as stream:
                scan = TarScan(stream, url)
                for sample, _ in scan:
                    yield from _skipped(url, scan.left_out)
                    yield self._item(url, path, sample, version)
                yield from _skipped(url, scan.left_out)
            hidden += scan.hidden
            remarks += scan.remarks
        self.remarks = hidden_remark(hidden) + remarks

    def _item(self, url: str, path: str, sample: TarSample, version: str) -> Item:
        caption = Extent(path, sample.caption_offset, sample.caption_length) if sample.caption_length else None
        image = Extent(path, sample.offset, sample.length)
        return Item(f"{printable(url)}/{sample.key}", image, sample.label, None, caption, version, sample.note)

    def _local(self, number: int, url: str) -> tuple[str, str]:
        """An uncompressed local copy of the tar, and its version."""
        path = Path(url)
        if is_remote(url):
            path = self._scratch / f"{number:06d}.tar"
            if not path.is_file():
                self._scratch.mkdir(parents=True, exist_ok=True)
                with replacing(path) as partial, open_url(url) as stream, partial.open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
        version = f"{path.stat().st_size} " if is_remote(url) else file_version(str(path))
        packed = unpacker(_head(path))
        if packed and packed[0] in _UNPACK:
            path = _unpacked(path, self._scratch / f"{number:06d}.unpacked.tar", _UNPACK[packed[0]])
        return str(path), version

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return read_image(data, channels, min_size=min_size, max_pixels=max_pixels)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        self.remarks += mixed_remark(found)
        return class_names(found)


def _unpacked(path: Path, plain: Path, opener: Callable[[Path], Any]) -> Path:
    """Decompresses ``path`` to ``plain``, and returns that."""
    if not plain.is_file():
        plain.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(plain) as partial, opener(path) as stream, partial.open("wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, and not of bzip2 or gzip
            raise ValueError(f"{path}: truncated or damaged, it cannot be unpacked ({error})") from error
    return plain


def _skipped(url: str, left_out: list[LeftOut]) -> Iterator[Skipped]:
    """Takes over the entries that a scan has left out so far."""
    for name, reason, detail in left_out:
        yield Skipped(f"{printable(url)}/{name}", reason, detail)
    left_out.clear()


class NamedSource:
    """A data set of ``assets.py``: raw pixels at fixed strides."""

    default_format: Literal["jpg", "png"] = "png"

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.identity = f"data set {name}"
        self.remarks: list[str] = []
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


class TintedSource(NamedSource):
    """Half of Fashion-MNIST's garments, each in a colour of a palette: see ``assets.tinted``."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(tinted.GARMENTS, folder)
        self._palette, self.identity = name, f"data set {name}"

    def items(self) -> Iterator[Item | Skipped]:
        for number, item in enumerate(super().items()):
            if tinted.is_of(self._palette, number):
                yield item

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        grey = super().decode(item, data, 1, min_size, max_pixels)
        if channels == 1:
            return grey
        number = int(item.name.rpartition("/")[2])
        return tinted.tinted(grey[:, :, 0], tinted.PALETTES[self._palette][tinted.color_of(self._palette, number)])


class EmojiSource:
    """The emoji of one vendor on white, with their names as captions and their categories as classes.

    Those that only the other vendor's set trains on are left out: see ``assets.emoji``.
    """

    official = True
    default_format: Literal["jpg", "png"] = "png"

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.identity = f"data set {name}"
        self.remarks: list[str] = []
        self._folder = folder

    def items(self) -> Iterator[Item | Skipped]:
        names = str(self._folder / emoji.NAMES)
        start = 0
        for found in emoji.emoji(self._folder, emoji.VENDORS[self.name]):
            length = len(found.name.encode())
            if found.split is not None:
                image, caption = Extent(str(self._folder / found.file)), Extent(names, start, length)
                yield Item(found.name, image, found.category, found.split, caption)
            start += length + 1

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return read_image(data, channels, min_size=min_size, max_pixels=max_pixels)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        return class_names(found)


class SpriteSource:
    """Sprites, drawn while they are read, with their factors as captions and their shapes as classes."""

    name = "sprites"
    identity = "data set sprites"
    official = False
    default_format: Literal["jpg", "png"] = "png"

    def __init__(self, folder: Path) -> None:
        self.remarks: list[str] = []
        self._folder = folder

    def items(self) -> Iterator[Item | Skipped]:
        codes, captions = str(self._folder / sprites.CODES), str(self._folder / sprites.CAPTIONS)
        size, start = len(sprites.FACTORS), 0
        with open(captions, "rb") as lines, open(codes, "rb") as stream:
            for number, line in enumerate(lines):
                shape = sprites.SHAPES[stream.read(size)[0]]
                text = Extent(captions, start, len(line) - 1)
                yield Item(f"sprites/{number:05d}", Extent(codes, size * number, size), shape, None, text)
                start += len(line)

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return np.repeat(sprites.draw(tuple(data))[:, :, None], channels or 1, axis=2)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        return sprites.SHAPES
