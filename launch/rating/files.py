"""The files of a rating. Scores come from other people's machines, so every part of them is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

#: Most bytes of a JSON file: a rater's scores are a few kB, the largest key a few MB.
MAX_BYTES = 64_000_000

#: Scores are whole numbers from 1 to this.
BEST = 5


@dataclass(frozen=True)
class Item:
    """The meaning of one id of a page.

    Args:
        method: what made the picture.
        picture: the content (and the style) that it was made of: the same for every method.
    """

    method: str
    picture: str


@dataclass(frozen=True)
class Key:
    """The key of a page: which method made which picture, which the page itself does not show."""

    page: str
    question: str
    items: Mapping[str, Item]

    def text(self) -> str:
        """The key file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Sheet:
    """One file of scores: by id of the page, whole numbers in [1, 5]."""

    page: str
    rater: str
    saved: datetime
    scores: Mapping[str, int]


def key_of(page: Path) -> Path:
    """The path of a page's key: ``rate.key.json`` beside ``rate.html``."""
    return page.with_suffix(".key.json")


def read_key(file: Path) -> Key:
    """A key file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, or damaged.
    """
    found = _read_json(file)
    page, question, items = found.get("page"), found.get("question"), found.get("items")
    if not isinstance(page, str) or not isinstance(question, str) or not isinstance(items, dict):
        raise ValueError(f"{file}: not the key of a rating page")
    for item in items.values():
        if not isinstance(item, dict) or not all(isinstance(item.get(part), str) for part in ("method", "picture")):
            raise ValueError(f"{file}: the key of a rating page, but damaged")
    return Key(page, question, {name: Item(item["method"], item["picture"]) for name, item in items.items()})


def read_sheet(file: Path, keys: Mapping[str, Key]) -> Sheet:
    """A file of scores, every part of it checked; what it holds beside these parts is ignored.

    Args:
        file: what the page saved. ``rater`` may be missing: then the file is a rater of its own.
        keys: by page.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of scores, of another page, or holds a score or an id that the page cannot have given.
    """
    found = _read_json(file)
    page, rater, entries = found.get("page"), found.get("rater", str(file.resolve())), found.get("scores")
    if not isinstance(page, str) or not isinstance(rater, str) or not isinstance(entries, list):
        raise ValueError(f"{file}: no scores of a rating page")
    if page not in keys:
        raise ValueError(f"{file}: scores of page {page[:40]!r}, whose key is not here (--page or --key names it)")
    scores: dict[str, int] = {}
    for entry in entries:
        name, score = _entry(file, entry)
        if name not in keys[page].items:
            raise ValueError(f"{file}: id {name[:40]!r} is not on the page")
        if name in scores:
            raise ValueError(f"{file}: id {name!r} is scored twice")
        scores[name] = score
    if not scores:
        raise ValueError(f"{file}: nothing is scored in it")
    return Sheet(page, rater, _moment(file, found.get("saved")), scores)


def _entry(file: Path, entry: object) -> tuple[str, int]:
    """One picture's id and score."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError(f"{file}: a score without an id")
    name, score, seconds = entry["id"], entry.get("score"), entry.get("seconds", 0)
    # type() and not isinstance(): true is no score.
    if type(score) is not int or not 1 <= score <= BEST:
        raise ValueError(f"{file}: the score of id {name[:40]!r} is not a whole number from 1 to {BEST}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"{file}: the seconds of id {name[:40]!r} are not a number of 0 or more")
    return name, score


def _moment(file: Path, saved: object) -> datetime:
    """The time at which a file was saved; without one, the file counts as the oldest."""
    if saved is None:
        return datetime.min.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(saved)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: `saved` is not a date and time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 10**6} MB")
        found = json.loads(file.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON that can be read ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: not a JSON object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
