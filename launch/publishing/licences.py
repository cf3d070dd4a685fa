"""Licences of style pictures, as files beside them or in them say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gesso.common.files import sha256
from gesso.common.text import harmless

_COPYRIGHT = 0x8298


def style_facts(files: Sequence[Path]) -> list[dict[str, str]] | None:
    """Name, SHA-256 and, where it is known, the licence of each style picture; None: there are none."""
    found = []
    for file in files:
        entry = {"name": file.name, "sha256": sha256(file)}
        if licence := licence_of(file):
            entry["licence"] = licence
        found.append(entry)
    return found or None


def licence_of(file: Path) -> str | None:
    """A picture's licence: of the file ``NAME.license`` beside it (REUSE), else its EXIF copyright; None: not known."""
    beside = file.with_name(f"{file.name}.license")
    if beside.is_file():
        for line in beside.read_text(encoding="utf-8", errors="replace")[:65536].splitlines():
            _, found, words = line.partition("SPDX-License-Identifier:")
            if found and words.strip():
                return harmless(words.strip())
    try:
        with Image.open(file) as image:
            owner = image.getexif().get(_COPYRIGHT)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return harmless(owner.strip()) if isinstance(owner, str) and owner.strip() else None
