"""Candidates of a build: byte ranges with names, and files that are none, with the reason."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

#: Reasons for which a file's name alone makes it no candidate.
NOT_AN_IMAGE = "not an image file"


class Extent(NamedTuple):
    """A range of bytes of a local file; ``length`` -1 is its end.

    ``inflated`` is its size in bytes once inflated (an entry of a zip), -1 if it is not deflated. ``crc`` is the
    CRC-32 that its bytes must have, -1 where none is known.
    """

    file: str
    offset: int = 0
    length: int = -1
    inflated: int = -1
    crc: int = -1

    def size(self) -> int:
        """How many bytes ``read`` gives, as far as its file or its zip says so.

        Raises:
            OSError: there is no such file.
        """
        if self.inflated >= 0:
            return self.inflated
        return self.length if self.length >= 0 else os.stat(self.file).st_size - self.offset

    def head(self, count: int) -> bytes:
        """The first bytes, at most ``count``; fewer where they are damaged.

        Raises:
            OSError: they cannot be read.
        """
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(count if self.length < 0 else min(count, self.length))
        if self.inflated < 0:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, count)
        except zlib.error:
            return b""

    def read(self) -> bytes:
        """Reads the bytes.

        Raises:
            OSError: they cannot be read, or are damaged.
        """
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
        if self.inflated < 0:
            return self._checked(data)
        try:
            # No more than announced: a small file must not fill the memory.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.inflated + 1)
        except zlib.error as error:
            raise OSError(f"damaged in its zip ({error})") from error
        if len(data) != self.inflated:
            raise OSError("damaged in its zip: another length than it says")
        return self._checked(data)

    def _checked(self, data: bytes) -> bytes:
        if self.crc >= 0 and zlib.crc32(data) != self.crc:
            raise OSError("damaged in its zip: another checksum than it says")
        return data


@dataclass(frozen=True)
class Item:
    """One candidate.

    Args:
        name: in reports; printable text.
        image, caption: their byte ranges.
        label: name of its class.
        split: official split of the data set.
        version: changes when its file does.
        note: what could not be understood of it, for the report.
    """

    name: str
    image: Extent
    label: str | None = None
    split: str | None = None
    caption: Extent | None = None
    version: str = ""
    note: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A file or entry that is no candidate, and why."""

    name: str
    reason: str = NOT_AN_IMAGE
    detail: str = ""


class Source(Protocol):
    """Lists candidates in a fixed order. Workers call ``decode``: a source is small and can be pickled."""

    name: str
    #: Whether items have an official split.
    official: bool
    #: Identity of this source: a build with another one starts again.
    identity: str
    default_format: Literal["jpg", "png"]
    #: Remarks of the last pass of ``items``, a line each: hidden files, labels without images.
    remarks: list[str]

    def items(self) -> Iterator[Item | Skipped]: ...

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray: ...

    def classes(self, found: set[str]) -> tuple[str, ...]: ...


def file_version(path: str) -> str:
    """Version of a file, which changes when the file does.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns} "


def hidden_remark(count: int) -> list[str]:
    """A line for the report with the number of hidden files that were skipped, if there are any."""
    return [f"{count:,} hidden files or folders (names that begin with a dot) passed over"] if count else []
