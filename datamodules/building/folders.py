"""Images in folders, on disk or in a zip, with StyleGAN's ``dataset.json`` where there is one."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from datamodules.building.candidates import NOT_AN_IMAGE, Extent, Item, Skipped, file_version, hidden_remark
from datamodules.building.labels import Reading, class_names, folder_classes, mixed_remark, read_label
from datamodules.decoding.images import read_image
from datamodules.manifest import MANIFEST_NAME
from gesso.common.pictures import is_picture
from gesso.common.text import decode_text, printable

#: StyleGAN's list of labels: {"labels": [["00000/img00000000.png", 6], ...]}, or null where there are none.
DATASET_JSON = "dataset.json"
_UNREADABLE = (errno.EACCES, errno.EPERM)
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's entry: the lengths of its name and of its extra field


class _Unusable(Exception):
    """A file that is no candidate: reason and detail."""


class _Folder(NamedTuple):
    """One folder: its path below the root, its files, and a function from a file's name to its bytes and version."""

    path: str
    files: list[str]
    locate: Callable[[str], tuple[Extent, str]]


class _Labels:
    """The labels of a ``dataset.json``, and the number of those that were used.

    Args:
        entries: (path, label) of each file.
    """

    def __init__(self, entries: Iterable[tuple[str, Any]]) -> None:
        self.entries: dict[str, Any] = {}
        self.contradicted: dict[str, Any] = {}
        self.repeated = 0
        for path, label in entries:
            if path not in self.entries:
                self.entries[path] = label
            elif read_label(self.entries[path]) != read_label(label):
                self.contradicted[path] = label
            else:
                self.repeated += 1
        self.vectors = any(isinstance(label, list) for label in self.entries.values())
        self.asked = 0

    def read(self, path: str) -> Reading:
        """The label of a file by its path, and a note on a label that is not understood."""
        if not self.entries or self.vectors:
            return None, None
        if path not in self.entries:
            return None, f"no label in {DATASET_JSON}"
        self.asked += 1
        if path in self.contradicted:
            both = f"{self.entries[path]!r} and {self.contradicted[path]!r}"
            return None, f"{DATASET_JSON} lists it with two labels, {both}: none"
        return read_label(self.entries[path])

    def remarks(self) -> list[str]:
        if not self.entries:
            return [f"{DATASET_JSON} has no labels: folders are not taken for classes"]
        if self.vectors:
            return [f"labels in {DATASET_JSON} are vectors, not classes: left out"]
        lost = len(self.entries) - self.asked
        found = [f"{lost:,} labels of {DATASET_JSON} belong to no image here"] if lost else []
        if self.repeated:
            found.append(f"{self.repeated:,} files are listed twice in {DATASET_JSON}, with the same label")
        return found


class PictureTree:
    """Images at any depth. The first folder below the root is the class; the caption is a ``.txt`` of the same stem.

    If the root has StyleGAN's ``dataset.json``, labels come from it, and folders are no classes.
    """

    official = False
    default_format: Literal["jpg", "png"] = "jpg"

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.identity = identity
        self.remarks: list[str] = []
        self._hidden = 0
        self._listed = False

    def items(self) -> Iterator[Item | Skipped]:
        """Items, sorted by path within each folder; hidden files are counted, other files skipped."""
        self._hidden = 0
        labels: _Labels | None = None
        for folder in self._folders():
            if isinstance(folder, Skipped):
                yield folder
                continue
            if not folder.path:
                labels = _dataset_json(folder)
            yield from self._of_folder(folder, labels)
        self._listed = labels is not None
        self.remarks = hidden_remark(self._hidden) + (labels.remarks() if labels else [])

    def _folders(self) -> Iterator[_Folder | Skipped]:
        """All folders, the root first."""
        raise NotImplementedError

    def _of_folder(self, folder: _Folder, labels: _Labels | None) -> Iterator[Item | Skipped]:
        texts = {os.path.splitext(file)[0]: file for file in sorted(folder.files) if file.lower().endswith(".txt")}
        pictured = {os.path.splitext(file)[0] for file in folder.files if is_picture(file)}
        for file in sorted(folder.files):
            path = f"{folder.path}/{file}" if folder.path else file
            if file.startswith("."):
                self._hidden += 1
            elif is_picture(file):
                yield self._candidate(folder, file, path, texts.get(os.path.splitext(file)[0]), labels)
            elif file.lower().endswith(".txt"):
                if os.path.splitext(file)[0] not in pictured:
                    yield Skipped(printable(path), "a text without an image of its name")
            elif labels is None or path != DATASET_JSON:
                yield Skipped(printable(path), NOT_AN_IMAGE)

    def _candidate(
        self, folder: _Folder, file: str, path: str, text: str | None, labels: _Labels | None
    ) -> Item | Skipped:
        try:
            image, version = folder.locate(file)
        except _Unusable as unusable:
            return Skipped(printable(path), *unusable.args)
        if labels is not None:
            label, note = labels.read(path)
        else:
            label, note = printable(path.split("/")[0]) if folder.path else None, None
        caption = None
        if text is not None:
            try:
                caption, caption_version = folder.locate(text)
                version += caption_version
            except _Unusable as unusable:
                note = f"its caption is left out: {' '.join(unusable.args)}"
        return Item(printable(path), image, label, None, caption, version, note)

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray:
        return read_image(data, channels, min_size=min_size, max_pixels=max_pixels)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        if not self._listed:
            return folder_classes(found)
        self.remarks += mixed_remark(found)
        return class_names(found)


class FolderSource(PictureTree):
    """A folder on disk.

    Args:
        root: the folder.
        without: a folder inside to leave out: that of the shards.
    """

    def __init__(self, root: Path, without: Path | None = None) -> None:
        super().__init__(printable(root.resolve().name), f"folder {root.resolve()}")
        self.root = root
        self._without = without

    def _folders(self) -> Iterator[_Folder | Skipped]:
        seen = {_place(self._without)} if self._without is not None and self._without.is_dir() else set()
        errors: list[OSError] = []
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=errors.append):
            yield from self._unreadable(errors)
            inside = Path(folder).relative_to(self.root).as_posix()
            if (place := _place(folder)) in seen:  # links in a circle
                folders.clear()
                continue
            seen.add(place)
            if MANIFEST_NAME in files and any(file.endswith(".index.npy") for file in files):
                folders.clear()
                if inside == ".":
                    raise ValueError(f"{self.root}: is a shard set itself; its shards are '{self.root}/*.tar'")
                yield Skipped(f"{printable(inside)}/", "a shard set, not a folder of images")
                continue
            self._hidden += sum(name.startswith(".") for name in folders)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield _Folder("" if inside == "." else inside, files, _LocateIn(folder))
        yield from self._unreadable(errors)

    def _unreadable(self, errors: list[OSError]) -> Iterator[Skipped]:
        """Skips folders without read permission; raises any other error, so that no class is lost to a passing one."""
        for error in errors:
            inside = os.path.relpath(error.filename, self.root)
            if error.errno not in _UNREADABLE or inside == ".":
                raise error
            yield Skipped(f"{printable(inside)}/", "unreadable folder", error.strerror or "")
        errors.clear()


class _LocateIn:
    """Finds a folder's files."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, file: str) -> tuple[Extent, str]:
        path = os.path.join(self._folder, file)
        try:
            mode = os.stat(path).st_mode
            version = file_version(path)
        except OSError as error:
            lost = os.path.islink(path) and error.errno == errno.ENOENT
            raise _Unusable("unreadable", "a link to nothing" if lost else error.strerror or str(error)) from error
        if not stat.S_ISREG(mode):
            raise _Unusable("no plain file", "a named pipe" if stat.S_ISFIFO(mode) else "a socket or device")
        return Extent(path), version


class ZipSource(PictureTree):
    """A zip with the entries of a folder; a single folder that holds all of them is the root.

    Args:
        path: the file.

    Raises (``items``):
        ValueError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(printable(path.stem), f"zip {path.resolve()}")
        self.path = path

    def _folders(self) -> Iterator[_Folder | Skipped]:
        try:
            with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as stream:
                entries: dict[str, zipfile.ZipInfo] = {}
                for name, info in self._named(archive.infolist()):
                    if name in entries:
                        yield Skipped(printable(name), "in the zip twice", "the last is taken")
                    entries[name] = info
                prefix = _common_folder(list(entries))
                folders: dict[str, dict[str, zipfile.ZipInfo]] = {"": {}}
                for name, info in entries.items():
                    folder, _, base = name.removeprefix(prefix).rpartition("/")
                    if any(part.startswith(".") for part in folder.split("/")) or "__MACOSX" in name:
                        self._hidden += 1
                    else:
                        folders.setdefault(folder, {})[base] = info
                for folder in sorted(folders):
                    yield _Folder(folder, list(folders[folder]), _LocateInZip(self.path, stream, folders[folder]))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{self.path}: a damaged zip, or one of several parts ({error})") from error

    def _named(self, entries: list[zipfile.ZipInfo]) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        """The files with their names below the root: some zips of Windows part folders by backslashes, against the
        standard, and some names begin at the root of a disk."""
        backslashes = not any("/" in info.filename for info in entries)
        for info in entries:
            name = info.filename
            if backslashes or info.create_system == 0:
                name = name.replace("\\", "/")
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if parts and not name.endswith("/"):
                yield "/".join(parts), info


def is_zip(path: Path) -> bool:
    """Whether a file is a zip: also an empty one, and one behind a program that unpacks it; no tar that holds one."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if head in (b"PK\x03\x04", b"PK\x05\x06"):
        return True
    return zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)


class _LocateInZip:
    """Finds the entries of one of a zip's folders."""

    def __init__(self, path: Path, stream: IO[bytes], entries: dict[str, zipfile.ZipInfo]) -> None:
        self._path = path
        self._stream = stream
        self._entries = entries

    def __call__(self, file: str) -> tuple[Extent, str]:
        info = self._entries[file]
        if info.flag_bits & 1:
            raise _Unusable("unreadable", "encrypted in its zip")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Unusable("unreadable", "packed in its zip in a rare way: unzip it first")
        self._stream.seek(info.header_offset)
        header = self._stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise _Unusable("unreadable", "its zip is cut off")
        start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
        inflated = info.file_size if info.compress_type == zipfile.ZIP_DEFLATED else -1
        extent = Extent(str(self._path), start, info.compress_size, inflated, info.CRC)
        return extent, f"{info.CRC:08x}-{info.file_size} "


def _dataset_json(root: _Folder) -> _Labels | None:
    """StyleGAN's labels, if the root has them."""
    if DATASET_JSON not in root.files:
        return None
    try:
        fields = json.loads(decode_text(root.locate(DATASET_JSON)[0].read()) or "")
    except (_Unusable, OSError, ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or "labels" not in fields:
        return None
    entries = fields["labels"] or []
    if not isinstance(entries, list | dict):
        return None
    pairs = entries.items() if isinstance(entries, dict) else entries
    try:
        return _Labels(pairs)
    except (TypeError, ValueError):
        return None


def _common_folder(names: list[str]) -> str:
    """``NAME/`` if all entries are in one folder NAME, else empty."""
    tops = {name.split("/")[0] if "/" in name else "" for name in names if not name.startswith("__MACOSX/")}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top else ""


def _place(folder: str | Path) -> tuple[int, int]:
    """Identity of a folder, the same under another name."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
