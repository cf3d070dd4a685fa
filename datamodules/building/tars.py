"""WebDataset tars: writing one so that its bytes depend on nothing but its samples, and finding the samples in one.

A sample is the run of members whose names agree up to the first dot of their last part; what follows the dot says
what the member is. See the WebDataset format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from datamodules.manifest import INDEX_DTYPE, Shard

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class TarSample:
    """Where a sample's image (and caption) lie in its tar, in bytes from its start. ``label`` as the tar spells it."""

    key: str
    offset: int
    length: int
    label: str | None
    caption_offset: int
    caption_length: int


class TarScan:
    """One pass over a tar; iterating gives its samples, each with its image's bytes.

    Args:
        stream: the tar's bytes; read to the end, never sought.
        name: how errors call it.

    After the pass: ``length`` in bytes and ``sha256`` of the tar, and ``without_image``, how many samples had none.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = _Counted(stream)
        self._name = name
        self.without_image = 0

    @property
    def length(self) -> int:
        return self._stream.length

    @property
    def sha256(self) -> str:
        return self._stream.sum.hexdigest()

    def __iter__(self) -> Iterator[tuple[TarSample, bytes]]:
        """Yields (sample, its image).

        Raises:
            ValueError: the tar is truncated or none; the line says at which byte.
        """
        key: str | None = None
        parts: dict[str, tuple[int, bytes]] = {}
        for member, content in self._members():
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            if f"{folder}/{stem}" != key:
                yield from self._sample(key, parts)
                key, parts = f"{folder}/{stem}", {}
            parts.setdefault(extension.lower(), (member.offset_data, content))
        yield from self._sample(key, parts)

    def _sample(self, key: str | None, parts: dict[str, tuple[int, bytes]]) -> Iterator[tuple[TarSample, bytes]]:
        if key is None:
            return
        image = next((parts[extension] for extension in IMAGE_EXTENSIONS if extension in parts), None)
        if image is None:
            self.without_image += 1
            return
        caption_offset, caption = parts.get("txt", (0, b""))
        offset, data = image
        sample = TarSample(key.lstrip("/"), offset, len(data), _label(parts), caption_offset, len(caption))
        yield sample, data

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        last = ""
        try:
            with tarfile.open(fileobj=self._stream, mode="r|") as tar:
                for member in tar:
                    last = f" inside {member.name!r}, which begins at byte {member.offset}"
                    content = tar.extractfile(member) if member.isfile() else None
                    if content is not None:
                        data = content.read()
                        if len(data) < member.size:
                            raise tarfile.ReadError("unexpected end of data")
                        yield member, data
        except tarfile.TarError as error:
            if "unexpected end" in str(error):
                raise ValueError(f"{self._name}: truncated: it ends at byte {self.length}{last}") from error
            raise ValueError(f"{self._name}: not a plain tar (at byte {self.length}: {error})") from error
        while self._stream.read(1 << 20):
            pass
        if self.length % tarfile.BLOCKSIZE:  # tarfile takes half a header for the end
            raise ValueError(f"{self._name}: truncated: it ends at byte {self.length}, amid a header{last}")


class ShardWriter:
    """Writes one tar aside and gives it its name when it is whole; leaves nothing behind when that fails.

    Args:
        path: the tar's final path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Always the same name: an interrupted build begins this one again, and leaves none behind.
        self._partial = path.with_name(f"{path.name}.partial")
        self._file = self._partial.open("wb")
        self._stream = _Counted(self._file)
        self._tar = tarfile.TarFile(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)
        self._rows: list[tuple[int, int, int, int, int, int]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, key: str, image: bytes, extension: str, label: int, caption: str) -> None:
        """Appends a sample; a negative label and an empty caption are left out."""
        offset = self._member(f"{key}.{extension}", image)
        if label >= 0:
            self._member(f"{key}.cls", str(label).encode())
        text = caption.encode()
        caption_offset = self._member(f"{key}.txt", text) if text else 0
        self._rows.append((offset, len(image), label, caption_offset, len(text), len(self._rows)))

    def finish(self) -> tuple[Shard, np.ndarray]:
        """Closes the tar under its name; returns its entry of the manifest and its rows of the index."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)
        rows = np.array(self._rows, INDEX_DTYPE)
        return Shard(self.path.name, len(rows), self._stream.length, self._stream.sum.hexdigest()), rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(OSError):  # a full disk complains once more about what it could not flush
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def _member(self, name: str, data: bytes) -> int:
        """Appends a file whose header says nothing of when and by whom; returns where its content begins."""
        offset = self._stream.length + tarfile.BLOCKSIZE
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        return offset


def class_names(found: set[str]) -> tuple[str, ...]:
    """Names of the classes whose spellings are ``found``: numbers count from 0, anything else is sorted.

    Raises:
        ValueError: a number too large to be a class.
    """
    if not all(label.isdecimal() for label in found):
        return tuple(sorted(found))
    highest = max(map(int, found), default=-1)
    if highest > 10_000_000:
        raise ValueError(f"class number {highest}: that is no class; are the .cls members something else?")
    return tuple(str(number) for number in range(highest + 1))


def _label(parts: dict[str, tuple[int, bytes]]) -> str | None:
    """From ``.cls``, or from "label" or "class" of ``.json``."""
    if "cls" in parts:
        text = parts["cls"][1].decode(errors="replace").strip()
        return str(int(text)) if text.isdecimal() else text or None
    try:
        fields = json.loads(parts["json"][1]) if "json" in parts else {}
        label = fields.get("label", fields.get("class")) if isinstance(fields, dict) else None
    except (ValueError, RecursionError):
        return None
    return str(label) if isinstance(label, int | str) else None


class _Counted(io.RawIOBase):
    """A stream that counts and sums the bytes that pass."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.length = 0
        self.sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        return self._passed(self._stream.read(size))

    def write(self, data: Any) -> int:
        self._stream.write(self._passed(data))
        return len(data)

    def tell(self) -> int:
        return self.length

    def _passed(self, data: bytes) -> bytes:
        self.length += len(data)
        self.sum.update(data)
        return data
