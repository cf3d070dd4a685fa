"""The rating page: contents beside the methods' results, in one self-contained HTML file.

Blind: a picture's id is a digest, the pictures carry no names, their order in the page is that of the ids, and only
the key beside the page knows which method made which.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.decoding.images import BadImage, encode_image, read_image
from gesso.common.files import write_all_whole
from gesso.common.pictures import is_picture
from launch.rating.files import Item, Key, key_of, read_key

HERE = Path(__file__).parent

#: Of the embedded JPEGs: artefacts must not be mistaken for a method's.
QUALITY = 90

#: Questions by name; each is answered from 1 (bad) to 5 (excellent), the scale of ITU-T P.910.
QUESTIONS = {
    "overall": "Overall, how good is the result as a stylised version of the content?",
    "content": "How well does the result keep the objects and shapes of the content?",
    "style": "How well does the result take on the colours, strokes and textures of the style?",
}


@dataclass(frozen=True)
class Request:
    """The content of a rating page.

    Args:
        content: a folder of pictures.
        methods: by name, folders with the stylised pictures under the same names (the suffix may differ).
        style: one picture, or a folder with one for each content under the same name; None shows none.
        question: what raters answer.
        num: number of the content's pictures, drawn with ``seed``; None: all.
        size: longer side of the embedded pictures in pixels, at most.
    """

    content: Path
    methods: Mapping[str, Path]
    style: Path | None = None
    question: str = QUESTIONS["overall"]
    num: int | None = None
    seed: int = 0
    size: int = 512


@dataclass(frozen=True)
class Made:
    """A written page and its key; ``missing`` are the pictures by method that were left out for all methods."""

    page: Path
    key: Path
    pictures: int
    missing: Mapping[str, list[str]]


def make_page(request: Request, out: Path) -> Made:
    """Writes the page to ``out`` and its key beside it, both or neither.

    The same pictures, question and seed give the same ids, so scores stay good when a page is made again.

    Raises:
        FileNotFoundError: a folder or the style picture is missing.
        ValueError: a method has no picture of these, something is no picture, or a key of another page would be lost.
        OSError: the files cannot be written.
    """
    contents = _by_stem(request.content)
    results = {method: _by_stem(folder) for method, folder in request.methods.items()}
    stems, missing = _common(request, contents, results)
    if request.num is not None:
        if request.num > len(stems):
            raise ValueError(f"--num {request.num}: there are {len(stems)} pictures that every method has")
        stems = sorted(random.Random(request.seed).sample(stems, request.num))
    styles = _styles(request.style, stems)
    shown = _Pictures(request.size)
    items: dict[str, Item] = {}
    entries: list[dict[str, Any]] = []
    for stem in stems:
        content, style = shown.add(contents[stem]), shown.add(styles[stem]) if stem in styles else None
        source = _digest(shown.digests[content], "" if style is None else shown.digests[style])
        for method, files in results.items():
            result = shown.add(files[stem])
            name = _digest(str(request.seed), request.question, method, stem, source, shown.digests[result])
            items[name] = Item(method, f"{stem} {source[:8]}")
            entries.append({"id": name, "content": content, "style": style, "result": result})
    # Sorted by a digest: the order tells nothing either.
    entries.sort(key=lambda entry: entry["id"])
    key = Key(_digest(*sorted(items)), request.question, dict(sorted(items.items())))
    _keep_other_keys(key_of(out), key)
    write_all_whole({key_of(out): key.text(), out: render(key, shown.in_order_of(entries), entries)})
    return Made(out, key_of(out), len(stems), missing)


def render(key: Key, pictures: list[str], entries: list[dict[str, Any]]) -> str:
    """The page. Of the key, only the question and the page's id go into it."""
    data = json.dumps({"page": key.page, "question": key.question, "pictures": pictures, "items": entries})
    parts = {
        "question": escape(key.question),
        # A string in JSON must not end the script that holds it.
        "data": data.replace("<", "\\u003c"),
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "script": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # In one pass: what is filled in is never searched for more to fill in.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


class _Pictures:
    """The page's pictures as JPEGs in data URIs, each file once however often it is shown."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.uris: list[str] = []
        self.digests: list[str] = []
        self._numbers: dict[Path, int] = {}

    def add(self, file: Path) -> int:
        """The number of a file's picture."""
        if file not in self._numbers:
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such picture")
            raw = file.read_bytes()
            try:
                image = Image.fromarray(read_image(raw, 3))
            except BadImage as error:
                raise ValueError(f"{file}: not a picture that can be read ({error})") from error
            image.thumbnail((self.size, self.size), Image.Resampling.LANCZOS)
            jpeg = encode_image(np.asarray(image), "jpg", QUALITY)
            self._numbers[file] = len(self.uris)
            self.uris.append(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}")
            self.digests.append(hashlib.sha256(raw).hexdigest())
        return self._numbers[file]

    def in_order_of(self, entries: list[dict[str, Any]]) -> list[str]:
        """The pictures in the order in which ``entries``, which are renumbered, show them first.

        As they were added, every method's pictures would stand at the same distance from each other.
        """
        order: dict[int, int] = {}
        for entry in entries:
            for role in ("content", "style", "result"):
                if entry[role] is not None:
                    entry[role] = order.setdefault(entry[role], len(order))
        return [self.uris[number] for number in order]


def _by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name without suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if is_picture(file):
            if file.stem in found:
                raise ValueError(f"{file}: there is a {found[file.stem].name} as well, and names must be unique")
            found[file.stem] = file
    if not found:
        raise FileNotFoundError(f"{folder}: no picture here")
    return found


def _common(
    request: Request, contents: Mapping[str, Path], results: Mapping[str, Mapping[str, Path]]
) -> tuple[list[str], dict[str, list[str]]]:
    """The names that every method has, and by method those that it lacks: all are compared on the same pictures."""
    missing = {}
    for method, files in results.items():
        lacking = sorted(contents.keys() - files.keys())
        if len(lacking) == len(contents):
            raise ValueError(
                f"{request.methods[method]}: no picture of {method} has the name of one in {request.content} "
                f"(such as {lacking[0]})"
            )
        if lacking:
            missing[method] = lacking
    stems = sorted(set(contents).difference(*missing.values()))
    if not stems:
        raise ValueError(f"no picture of {request.content} has a result of every method")
    return stems, missing


def _styles(style: Path | None, stems: list[str]) -> dict[str, Path]:
    if style is None:
        return {}
    if not style.is_dir():
        return dict.fromkeys(stems, style)
    files = _by_stem(style)
    for stem in stems:
        if stem not in files:
            raise ValueError(f"{style}: no style picture with the name {stem}")
    return {stem: files[stem] for stem in stems}


def _keep_other_keys(file: Path, key: Key) -> None:
    """Refuses to overwrite the key of another page, whose scores are worthless without it."""
    if file.exists() and read_key(file).page != key.page:
        raise ValueError(
            f"{file}: the key of another page, whose scores could not be read without it: "
            "delete it, or choose another --out"
        )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
