"""What a source gives to a build: candidates, each a range of bytes with a name, and what is none and why."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

#: Why a file of a source is no candidate, where nothing but its name says so.
NOT_AN_IMAGE = "not an image file"


class Extent(NamedTuple):
    """A range of bytes of a local file; ``length`` -1 is its end.

    ``inflated`` is how many bytes it has once inflated (a zip's entry), -1 where it is not deflated.
    """

    file: str
    offset: int = 0
    length: int = -1
    inflated: int = -1

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: they cannot be read, or are not what they should be.
        """
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
        if self.inflated < 0:
            return data
        try:
            # No more than was announced, lest a small file fills the memory.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.inflated + 1)
        except zlib.error as error:
            raise OSError(f"damaged in its zip ({error})") from error
        if len(data) != self.inflated:
            raise OSError("damaged in its zip: another length than it says")
        return data


@dataclass(frozen=True)
class Item:
    """One candidate.

    Args:
        name: what reports call it; text that any file can hold.
        image, caption: where they lie.
        label: its class's name.
        split: the split to which its authors gave it.
        version: changes when its file does.
        note: what of it was not understood, for the report.
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
    """Something found among the images that is no candidate, and why."""

    name: str
    reason: str = NOT_AN_IMAGE
    detail: str = ""


class Source(Protocol):
    """Gives candidates in a fixed order; workers call ``decode``, so it is small and can be pickled."""

    name: str
    #: Whether items know the split to which their authors gave them.
    official: bool
    #: What stands for this source when a build asks whether it is still the same.
    identity: str
    default_format: Literal["jpg", "png"]
    #: What the last pass of ``items`` has to say of the whole, a line each: hidden files, labels that nobody has.
    remarks: list[str]

    def items(self) -> Iterator[Item | Skipped]: ...

    def decode(self, item: Item, data: bytes, channels: int | None, min_size: int, max_pixels: int) -> np.ndarray: ...

    def classes(self, found: set[str]) -> tuple[str, ...]: ...


def file_version(path: str) -> str:
    """Changes when the file does.

    Raises:
        OSError: it is not there.
    """
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns} "


def hidden_remark(count: int) -> list[str]:
    """A line for the report on files that were passed over for their names, if there were any."""
    return [f"{count:,} hidden files or folders (names that begin with a dot) passed over"] if count else []
