"""metrics.csv: what a training logged, one row for each value, ``images_seen,seconds,name,value``.

The long format lets a loss, a FID and a learning rate come at intervals of their own. ``seconds`` is the Unix time.
The file grows by whole rows; half a row, which a killed training leaves, is none. A training that goes on from a
checkpoint first takes away what was logged after it, so that the file tells of one training however often it was
interrupted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gesso.common.files import append, write_whole


class Row(NamedTuple):
    """A value that was logged after so many ``images_seen``, at the Unix time ``seconds``."""

    images_seen: int
    seconds: float
    name: str
    value: float


def add_rows(file: Path, rows: Iterable[Row]) -> None:
    """Appends rows; a new file gets a header first.

    Raises:
        OSError: it cannot be written; names the file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if not file.exists():
        writer.writerow(Row._fields)
    writer.writerows([row.images_seen, f"{row.seconds:.3f}", row.name, repr(row.value)] for row in rows)
    append(file, text.getvalue())


def read_rows(file: Path) -> list[Row]:
    """The rows of a file, in their order; without those that a killed training left in part. [] where there is none."""
    return [row for _, row in _lines(file) if row is not None]


def cut_rows(file: Path, images_seen: int, count: int | None) -> int:
    """Keeps the rows up to a moment of training.

    Args:
        file: the file; nothing happens where there is none.
        images_seen: at that moment.
        count: how many of the rows with just these images seen had been logged by then; None: all.

    Returns:
        How many of those there are now.

    Raises:
        OSError: it cannot be written; names the file.
    """
    if not file.is_file():
        return 0
    header, *lines = [*_lines(file)] or [("", None)]
    kept, there = [header[0]], 0
    for line, row in lines:
        if row is None or row.images_seen > images_seen:
            continue
        if row.images_seen == images_seen:
            if count is not None and there >= count:
                continue
            there += 1
        kept.append(line)
    if len(kept) <= len(lines):
        write_whole(file, "".join(kept).encode("utf-8", "surrogateescape"))
    return there


def _lines(file: Path) -> Iterator[tuple[str, Row | None]]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        for line in stream:
            yield line, _parsed(next(csv.reader([line.replace("\0", "")]), []))


def _parsed(fields: Sequence[str]) -> Row | None:
    try:
        images_seen, seconds, name, value = fields
        return Row(int(images_seen), float(seconds), name, float(value))
    except ValueError:
        return None
