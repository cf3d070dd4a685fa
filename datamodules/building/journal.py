"""Journal of a build on disk, from which an interrupted build continues.

One SQLite file: the listing of candidates, what the scan found of each, and the shards that are finished.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.building.candidates import Extent, Item, Skipped
from datamodules.manifest import INDEX_DTYPE, Shard
from gesso.common.text import decode_text

_VERSION = 3  # of the tables
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS items (
    ordinal INTEGER PRIMARY KEY, item TEXT, name TEXT, label TEXT, split TEXT,
    digest BLOB, height INTEGER, width INTEGER, channels INTEGER, reason TEXT, detail TEXT, note TEXT,
    label_lost INTEGER DEFAULT 0, caption_lost INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS shards (split TEXT, number INTEGER, shard TEXT, rows BLOB, PRIMARY KEY (split, number));
"""


@dataclass(frozen=True)
class Found:
    """Result of scanning one candidate: digest and shape of its pixels, or why it is left out."""

    ordinal: int
    digest: bytes | None = None
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    reason: str | None = None
    detail: str | None = None
    #: Why its caption is left out; None if it is not.
    caption_lost: str | None = None


class Journal:
    """The journal of one build.

    Args:
        file: path of the journal. One that is damaged, or of another version, is replaced by an empty one.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not _is_sound(file):
            for name in (file.name, f"{file.name}-journal", f"{file.name}-wal", f"{file.name}-shm"):
                file.with_name(name).unlink(missing_ok=True)
        self._db = sqlite3.connect(file)
        self._db.executescript(f"{_SCHEMA}PRAGMA user_version = {_VERSION};")

    def close(self) -> None:
        self._db.close()

    def commit(self) -> None:
        self._db.commit()

    def fact(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def state(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def clear(self) -> None:
        """Removes all entries."""
        self._db.executescript("DELETE FROM facts; DELETE FROM items; DELETE FROM shards;")

    def record_candidates(self, candidates: Iterable[Item | Skipped]) -> str:
        """Records the candidates; returns their fingerprint."""
        digest = hashlib.sha256()

        def rows() -> Iterator[tuple[int | str | None, ...]]:
            for ordinal, candidate in enumerate(candidates):
                digest.update(_identity(candidate))
                if isinstance(candidate, Skipped):
                    yield ordinal, None, candidate.name, None, None, candidate.reason, candidate.detail, None
                else:
                    item, label, split = _write_item(candidate), candidate.label, candidate.split
                    yield ordinal, item, candidate.name, label, split, None, None, candidate.note

        columns = "ordinal, item, name, label, split, reason, detail, note"
        self._db.executemany(f"INSERT INTO items ({columns}) VALUES (?,?,?,?,?,?,?,?)", rows())
        return digest.hexdigest()

    def unscanned(self) -> int:
        """Number of candidates that are not scanned yet."""
        return self._count("digest IS NULL AND reason IS NULL")

    def to_scan(self, size: int) -> Iterator[list[tuple[int, Item]]]:
        """Candidates that are not scanned yet, ``size`` at a time, by name."""
        last = -1
        while True:
            rows = self._db.execute(
                "SELECT ordinal, item FROM items WHERE ordinal > ? AND digest IS NULL AND reason IS NULL "
                "ORDER BY ordinal LIMIT ?",
                (last, size),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [(ordinal, read_item(text)) for ordinal, text in rows]

    def found(self, results: Sequence[Found]) -> None:
        self._db.executemany(
            "UPDATE items SET digest=:digest, height=:height, width=:width, channels=:channels, reason=:reason, "
            "detail=:detail WHERE ordinal=:ordinal",
            [asdict(result) for result in results],
        )
        for result in results:
            if result.caption_lost is not None:
                self._lose_caption(result.ordinal, result.caption_lost)

    def drop_duplicates(self, *, captions: bool = True) -> None:
        """Leaves out all candidates with the same pixels as another one but the first by name.

        The detail names that one, and says so where the label or caption that goes with it is another.

        Args:
            captions: whether captions are kept at all.
        """
        self._db.execute("CREATE INDEX IF NOT EXISTS by_digest ON items (digest, ordinal)")
        self._db.create_function("caption_differs", 2, _caption_differs if captions else lambda first, second: None)
        same = "FROM items AS first WHERE first.digest = items.digest"
        labels = "', labelled ' || IFNULL(first.label, 'not') || ' there and ' || IFNULL(items.label, 'not') || ' here'"
        texts = "IFNULL(', ' || caption_differs(first.item, items.item), '')"
        detail = f"'the same pixels as ' || name || IIF(first.label IS items.label, '', {labels}) || {texts}"
        self._db.execute(
            "UPDATE items SET reason='duplicate', (detail, label_lost, caption_lost) = "
            f"(SELECT {detail}, first.label IS NOT items.label, {texts} != '' {same} ORDER BY ordinal LIMIT 1) "
            f"WHERE reason IS NULL AND ordinal > (SELECT MIN(ordinal) {same})"
        )

    def lost_with_duplicates(self) -> list[str]:
        """Lines for the report: how many duplicates had another label or caption than what stands for them."""
        labels, captions = self._count("label_lost"), self._count("caption_lost")
        why = "than the picture that stands for it: see the duplicates below, or keep them with --keep-duplicates"
        found = [f"{labels:,} of the dropped duplicates have another label {why}"] if labels else []
        return found + ([f"{captions:,} of the dropped duplicates have another caption {why}"] if captions else [])

    def unlabelled(self) -> int:
        """Number of kept candidates without a label."""
        return self._count("reason IS NULL AND label IS NULL")

    def duplicates(self) -> int:
        """Number of kept candidates with the same pixels as another kept one."""
        row = self._db.execute("SELECT COUNT(*) - COUNT(DISTINCT digest) FROM items WHERE reason IS NULL").fetchone()
        return int(row[0])

    def split_by_digest(self, shares: dict[str, float]) -> None:
        """Assigns every kept candidate to a split by the digest of its pixels alone."""
        bounds = list(zip(np.cumsum(list(shares.values())) / sum(shares.values()), shares, strict=True))

        def split(digest: bytes) -> str:
            # Other bytes of the digest than those that order the samples, so that the two are independent.
            place = int.from_bytes(digest[-8:], "big") / 2**64
            return next((name for bound, name in bounds if place < bound), bounds[-1][1])

        self._db.create_function("split_of", 1, split, deterministic=True)
        self._db.execute("UPDATE items SET split = split_of(digest) WHERE reason IS NULL")

    def kept(self, split: str | None = None) -> int:
        return self._count("reason IS NULL" + ("" if split is None else " AND split = ?"), *([split] if split else []))

    def samples(self, split: str, size: int) -> Iterator[list[str]]:
        """A split's samples, ``size`` at a time, for ``read_item``; ordered by digest, which shuffles them."""
        self._db.execute("CREATE INDEX IF NOT EXISTS by_split ON items (split, digest, ordinal)")
        rows = self._db.execute(
            "SELECT item FROM items WHERE split = ? AND reason IS NULL ORDER BY digest, ordinal", (split,)
        )
        while batch := rows.fetchmany(size):
            yield [text for (text,) in batch]

    def channels(self) -> set[int]:
        """Distinct numbers of channels of the kept candidates."""
        return {value for (value,) in self._db.execute("SELECT DISTINCT channels FROM items WHERE reason IS NULL")}

    def sizes(self) -> list[tuple[int, int]]:
        """Distinct (height, width) of the kept candidates."""
        return self._db.execute("SELECT DISTINCT height, width FROM items WHERE reason IS NULL").fetchall()

    def dropped(self) -> Iterator[tuple[str, str, str]]:
        """(name, reason, detail) of everything left out."""
        query = "SELECT name, reason, COALESCE(detail, '') FROM items WHERE reason IS NOT NULL ORDER BY ordinal"
        yield from self._db.execute(query)

    def dropped_by_reason(self) -> dict[str, int]:
        query = "SELECT reason, COUNT(*) FROM items WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"
        return dict(self._db.execute(query))

    def notes(self) -> Iterator[tuple[str, str]]:
        """(name, note) of candidates that are kept although a part is not understood."""
        yield from self._db.execute(
            "SELECT name, note FROM items WHERE reason IS NULL AND note IS NOT NULL ORDER BY ordinal"
        )

    def labels(self) -> dict[str, int]:
        """Number of kept candidates of each label."""
        query = "SELECT label, COUNT(*) FROM items WHERE label IS NOT NULL AND reason IS NULL GROUP BY label"
        return dict(self._db.execute(query))

    def finished(self, split: str, number: int) -> tuple[Shard, np.ndarray] | None:
        row = self._db.execute("SELECT shard, rows FROM shards WHERE split=? AND number=?", (split, number)).fetchone()
        return (Shard(**json.loads(row[0])), np.frombuffer(row[1], INDEX_DTYPE)) if row else None

    def finish(self, split: str, number: int, shard: Shard, rows: np.ndarray) -> None:
        text = json.dumps(asdict(shard))
        self._db.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", (split, number, text, rows.tobytes()))
        self._db.commit()

    def _lose_caption(self, ordinal: int, note: str) -> None:
        (text,) = self._db.execute("SELECT item FROM items WHERE ordinal = ?", (ordinal,)).fetchone()
        item = _write_item(replace(read_item(text), caption=None))
        self._db.execute("UPDATE items SET item = ?, note = ? WHERE ordinal = ?", (item, note, ordinal))

    def _count(self, condition: str, *values: str) -> int:
        return int(self._db.execute(f"SELECT COUNT(*) FROM items WHERE {condition}", values).fetchone()[0])


def fingerprint(candidates: Iterable[Item | Skipped]) -> str:
    """The fingerprint that ``Journal.record_candidates`` would return, without recording anything."""
    digest = hashlib.sha256()
    for candidate in candidates:
        digest.update(_identity(candidate))
    return digest.hexdigest()


def _is_sound(file: Path) -> bool:
    try:
        database = sqlite3.connect(file)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            return bool(version == _VERSION and database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        finally:
            database.close()
    except sqlite3.DatabaseError:
        return False


def _identity(candidate: Item | Skipped) -> bytes:
    if isinstance(candidate, Skipped):
        return candidate.name.encode()
    # Checksums stand in the version already, and sets built before they were compared stay what they are.
    caption = candidate.caption and candidate.caption._replace(crc=-1)
    return _write_item(replace(candidate, image=candidate.image._replace(crc=-1), caption=caption)).encode()


def _caption_differs(first: str, second: str) -> str | None:
    """What is lost where the second of two equal pictures is left out, for the report; None: no caption is."""
    texts = []
    for item in (read_item(first), read_item(second)):
        try:
            texts.append((decode_text(item.caption.read()) or "").strip() if item.caption else "")
        except OSError:
            # What cannot be read now is noticed again, and named, where it is written.
            texts.append("")
    if not texts[1] or texts[0] == texts[1]:
        return None
    return "with another caption there" if texts[0] else "without a caption there and with one here"


def _write_item(item: Item) -> str:
    image, caption = _write_extent(item.image), _write_extent(item.caption)
    return json.dumps([item.name, image, item.label, item.split, caption, item.version, item.note])


def _write_extent(extent: Extent | None) -> tuple[str | int, ...] | None:
    return extent if extent is None or extent.crc >= 0 else extent[:-1]


def read_item(text: str) -> Item:
    """Decodes a candidate from its row in the journal."""
    name, image, label, split, caption, version, note = json.loads(text)
    return Item(name, Extent(*image), label, split, Extent(*caption) if caption else None, version, note)
