"""Emoji of two vendors: the same things drawn in two manners, and which of them are held out as pairs.

No thing that is held out is trained on, in either manner: each vendor's training split has things that the other's has
not, and both ``test`` splits have the same ones. Variants of one thing (women and men, facing left and right, families)
go together, and so do flags that look alike.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

#: Data sets by name -> vendor.
VENDORS = {"emoji-google": "google", "emoji-twitter": "twitter"}
LIST, NAMES = "emoji.json", "names.txt"

#: Code points that tell variants of one thing apart where several are joined: joiner, presentation, signs of gender,
#: man, woman, person, boy, girl, child, arrow to the right.
_JOINER = "200d"
_VARIANTS = frozenset((_JOINER, "fe0f", "2640", "2642", "1f468", "1f469", "1f9d1", "1f466", "1f467", "1f9d2", "27a1"))
#: Flags that look like another: of Bouvet Island, Svalbard, Clipperton, Saint Martin, Diego Garcia, Ceuta, and the
#: Outlying Islands.
_SAME_FLAG = {"bv": "no", "sj": "no", "cp": "fr", "mf": "fr", "dg": "io", "ea": "es", "um": "us"}
#: Of 20 groups of variants, so many are held out.
_HELD_OUT = 2


class Emoji(NamedTuple):
    """One emoji: its file, its name (unique), its category, and ``train``, ``test``, or None: the other vendor's."""

    file: str
    name: str
    category: str
    split: str | None


def emoji(folder: Path, vendor: str) -> list[Emoji]:
    """All emoji of an asset's folder, in the order of its list, without skin tones.

    Args:
        folder: of the asset, with ``emoji.json``.
        vendor: google or twitter.
    """
    rows = json.loads((folder / LIST).read_bytes())
    return [Emoji(row["image"], row["short_name"], row["category"], _split(row["image"], vendor)) for row in rows]


def keep_base_emoji(folder: Path) -> None:
    """Leaves the pictures that ``emoji.json`` lists, without skin tones, and writes their names, a line each."""
    rows = json.loads((folder / LIST).read_bytes())
    listed = {row["image"] for row in rows}
    for file in folder.glob("*.png"):
        if file.name not in listed:
            file.unlink()
    (folder / NAMES).write_text("".join(f"{row['short_name']}\n" for row in rows), encoding="utf-8")


def _split(file: str, vendor: str) -> str | None:
    group = _group(file.removesuffix(".png"))
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 20
    if number < _HELD_OUT:
        return "test"
    return "train" if number % 2 == list(VENDORS.values()).index(vendor) else None


def _group(code: str) -> str:
    """What variants of one thing have in common."""
    points = code.split("-")
    if _JOINER in points:
        return "-".join(point for point in points if point not in _VARIANTS)
    letters = "".join(chr(int(point, 16) - 0x1F1E6 + ord("a")) for point in points if "1f1e6" <= point <= "1f1ff")
    return _SAME_FLAG.get(letters, letters) if len(letters) == 2 else code
