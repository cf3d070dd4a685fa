"""Reads and writes WebDataset tars; the bytes of a written tar depend only on its samples.

See the WebDataset format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

from datamodules.building.labels import Reading, read_cls, read_json
from datamodules.manifest import INDEX_DTYPE, Shard
from gesso.common.pictures import PICTURE_SUFFIXES
from gesso.common.text import decode_text, printable

#: Note on a caption in an unknown encoding.
CAPTION_LOST = "its caption is not UTF-8 or UTF-16 text: left out"

#: First bytes of compressed files -> their format, and the command that decompresses them.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gzip -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"\xfd7zXZ": ("xz", "xz -d"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"PK\x03\x04": ("zip", "unzip"),
}
_EXTENSIONS = tuple(suffix[1:] for suffix in PICTURE_SUFFIXES)
#: What a sample of latents ends with.
LATENTS = ("npy",)
# A word between two dots of a name, as in 0001.input.jpg, but not in 0001.2.jpg.
_FIELD = re.compile(r"[A-Za-z_]+", re.ASCII)


@dataclass(frozen=True)
class TarSample:
    """Byte ranges of a sample's image (and caption) in its tar.

    ``label`` is None if there is none; ``note`` names what is not understood of the sample.
    """

    key: str
    offset: int
    length: int
    label: str | None
    caption_offset: int
    caption_length: int
    note: str | None = None


class LeftOut(NamedTuple):
    """A member of a tar that is no image, label or caption of a sample, and why."""

    name: str
    reason: str
    detail: str = ""


class _Member(NamedTuple):
    """A file of a sample: what follows the first dot of its name, in small letters; its place; its bytes."""

    extension: str
    offset: int
    data: bytes


class TarScan:
    """One pass over a tar; iterating gives its samples, each with its image's bytes.

    A sample is a run of members whose names agree up to the first dot of their last part. Where that gives no image
    (``IMG 1.2.jpg``), what follows the last dot says what a member is, and several such images are samples of their
    own, unless words stand between the dots (``1.input.jpg``, ``1.mask.png``): gesso cannot know which is meant.
    Members whose names begin with a dot are passed over, as webdataset does: macOS leaves a ``._NAME`` beside each.

    Args:
        stream: the tar's bytes; read sequentially to the end.
        name: of the tar in errors.
        endings: of the members that are a sample's image; of latents, ``LATENTS``.

    During the pass, ``left_out`` collects members that are no part of a sample, and ``hidden`` counts members whose
    names begin with a dot. After it: ``length`` in bytes and ``sha256`` of the tar, and ``remarks`` on the whole of it.
    """

    def __init__(self, stream: IO[bytes], name: str, endings: tuple[str, ...] = _EXTENSIONS) -> None:
        self._stream = _Counted(stream)
        self._name = name
        self._endings = endings
        self.left_out: list[LeftOut] = []
        self.hidden = 0
        self.remarks: list[str] = []

    @property
    def length(self) -> int:
        return self._stream.length

    @property
    def sha256(self) -> str:
        return self._stream.sum.hexdigest()

    def __iter__(self) -> Iterator[tuple[TarSample, bytes]]:
        """Yields (sample, its image).

        Raises:
            ValueError: it is truncated or no tar; names the byte.
        """
        key: str | None = None
        members: list[_Member] = []
        for entry, content in self._entries():
            folder, _, base = entry.name.rpartition("/")
            if base.startswith("."):
                self.hidden += 1
                continue
            stem, _, extension = base.partition(".")
            stem = f"{folder}/{stem}"
            if stem != key:
                if key is not None:
                    yield from self._samples(key.lstrip("/"), members)
                key, members = stem, []
            members.append(_Member(extension.lower(), entry.offset_data, content))
        if key is not None:
            yield from self._samples(key.lstrip("/"), members)

    def _samples(self, key: str, members: list[_Member]) -> Iterator[tuple[TarSample, bytes]]:
        """The samples in one run of members; nearly always one."""
        parts = self._by_extension(key, members)
        if not any(extension in parts for extension in self._endings):
            groups: dict[str, dict[str, _Member]] = {}
            for extension, member in parts.items():
                infix, _, last = extension.rpartition(".")
                groups.setdefault(infix, {})[last] = member
            pictured = [infix for infix, group in groups.items() if any(last in group for last in self._endings)]
            if not pictured:
                self._leave_out(key, "no image among its members", ", ".join(sorted(parts)))
                return
            if len(pictured) > 1:
                if any(_FIELD.fullmatch(infix) for infix in pictured):
                    which = ", ".join(f"{key}.{infix}" for infix in pictured)
                    self._leave_out(key, "several images in a sample, and none is KEY.jpg", which)
                    return
                for infix in pictured:
                    yield self._sample(f"{key}.{infix}", groups.pop(infix))
                for infix, group in groups.items():
                    self._leave_out(f"{key}.{infix}", "no image among its members", ", ".join(sorted(group)))
                return
            key, parts = f"{key}.{pictured[0]}", groups.get("", {}) | parts | groups[pictured[0]]
        yield self._sample(key, parts)

    def _by_extension(self, key: str, members: list[_Member]) -> dict[str, _Member]:
        parts: dict[str, _Member] = {}
        for member in members:
            if parts.setdefault(member.extension, member) is not member:
                self._leave_out(f"{key}.{member.extension}", "in the tar twice", "the first is taken")
        return parts

    def _sample(self, key: str, parts: dict[str, _Member]) -> tuple[TarSample, bytes]:
        """The sample of these members, at least one of which is an image."""
        image = next(parts[extension] for extension in self._endings if extension in parts)
        for extension, member in parts.items():
            if member is not image and extension.rpartition(".")[2] in self._endings:
                self._leave_out(f"{key}.{extension}", "another image of a sample", f"{image.extension} is taken")
        reading: Reading = (None, None)
        if "cls" in parts:
            reading = read_cls(parts["cls"].data)
        elif "json" in parts:
            reading = read_json(parts["json"].data)
        label, note = reading
        caption = parts.get("txt")
        if caption is not None and decode_text(caption.data) is None:
            caption, note = None, CAPTION_LOST
        place = (caption.offset, len(caption.data)) if caption else (0, 0)
        return TarSample(printable(key), image.offset, len(image.data), label, *place, note), image.data

    def _leave_out(self, name: str, reason: str, detail: str = "") -> None:
        self.left_out.append(LeftOut(printable(name), reason, printable(detail)))

    def _entries(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Iterates over the tar's regular files."""
        last = ""
        try:
            with tarfile.open(fileobj=self._stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
                for member in tar:
                    last = f" inside {member.name!r}, which begins at byte {member.offset}"
                    if member.isdir():
                        continue
                    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                    if content is None:
                        self._leave_out(member.name, "no plain file", _kind(member))
                        continue
                    data = content.read()
                    if len(data) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    yield member, data
                end = tar.offset
        except tarfile.TarError as error:
            packed = unpacker(self._stream.head)
            if packed is not None:
                raise ValueError(
                    f"{self._name}: is a {packed[0]} file, not a plain tar; `{packed[1]}` unpacks it"
                ) from error
            if "unexpected end" in str(error):
                raise ValueError(f"{self._name}: truncated: it ends at byte {self.length}{last}") from error
            raise ValueError(f"{self._name}: not a plain tar (at byte {self.length}: {error})") from error
        while self._stream.read(1 << 20):
            pass
        if self.length % tarfile.BLOCKSIZE:  # tarfile takes half a header for the end
            raise ValueError(f"{self._name}: truncated: it ends at byte {self.length}, amid a header{last}")
        if self.length - end < tarfile.BLOCKSIZE:  # some writers leave it out, and so does a copy that broke off
            self.remarks = [
                f"{printable(self._name)}: ends at byte {self.length} without a tar's end mark: if it is a copy, "
                "compare its size with the original's, as whole members may be missing"
            ]
        if self._stream.content > end:  # tarfile takes a damaged header for the end
            raise ValueError(
                f"{self._name}: damaged at byte {end}, or two tars in one: {self._stream.content - end} bytes after it "
                "cannot be read; unpack what is whole with `tar --ignore-zeros -xf`, and build from that folder"
            )


def unpacker(head: bytes) -> tuple[str, str] | None:
    """Compression format of a file that begins with ``head``, and the command that decompresses it; None: none."""
    return next((packed for magic, packed in _PACKED.items() if head.startswith(magic)), None)


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname}"
    return "a sparse file" if member.issparse() else "a pipe or device"


class ShardWriter:
    """Writes one tar under a temporary name and renames it when it is complete; removes it if that fails.

    Args:
        path: the tar's final path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Always the same name, so that an interrupted build leaves no other temporary file behind.
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
        """Appends a file without date and owner in its header; returns the offset of its content."""
        offset = self._stream.length + tarfile.BLOCKSIZE
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        return offset


class _Counted(io.RawIOBase):
    """A stream that counts the bytes read, and computes their checksum."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.length = 0
        self.head = b""  # the first bytes
        self.content = 0  # up to the last byte that is not 0
        self.sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        return self._passed(self._stream.read(size))

    def write(self, data: Any) -> int:
        self._stream.write(self._passed(data))
        return len(data)

    def tell(self) -> int:
        return self.length

    def _passed(self, data: bytes) -> bytes:
        self.head = self.head or data[:8]
        if filled := len(data.rstrip(b"\0")):
            self.content = self.length + filled
        self.length += len(data)
        self.sum.update(data)
        return data
