"""Which emoji are variants of one thing, and which vendor trains on what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datamodules.assets.emoji import NAMES, emoji, keep_base_emoji

#: Codes of the Unicode standard: runner, a woman running, a man running to the right.
RUNNERS = ("1f3c3", "1f3c3-200d-2640-fe0f", "1f3c3-200d-2642-fe0f-200d-27a1-fe0f")
FAMILIES = ("1f468-200d-1f469-200d-1f466", "1f469-200d-1f467", "1f9d1-200d-1f9d1-200d-1f9d2")
#: Flags of Norway, Bouvet Island and Svalbard, which are one picture.
NORWAY = ("1f1f3-1f1f4", "1f1e7-1f1fb", "1f1f8-1f1ef")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    codes = [*RUNNERS, *FAMILIES, *NORWAY, *(f"{0x1F600 + number:x}" for number in range(80))]
    rows = [{"image": f"{code}.png", "short_name": f"name-{code}", "category": "Things"} for code in codes]
    (tmp_path / "emoji.json").write_text(json.dumps(rows))
    for file in [*(row["image"] for row in rows), "1f3c3-1f3fb.png"]:
        (tmp_path / file).write_bytes(b"")
    return tmp_path


def test_variants_of_one_thing_go_together(folder: Path) -> None:
    splits = {vendor: {one.name: one.split for one in emoji(folder, vendor)} for vendor in ("google", "twitter")}
    for group in (RUNNERS, FAMILIES, NORWAY):
        for found in splits.values():
            assert len({found[f"name-{code}"] for code in group}) == 1
    assert len({splits["google"][f"name-{0x1F600 + number:x}"] for number in range(80)}) == 3


def test_the_vendors_share_what_is_held_out_and_nothing_else(folder: Path) -> None:
    google, twitter = ([one.split for one in emoji(folder, vendor)] for vendor in ("google", "twitter"))
    pairs = set(zip(google, twitter, strict=True))
    assert pairs == {("test", "test"), ("train", None), (None, "train")}
    assert 1 <= google.count("test") <= 25


def test_skin_tones_are_left_out_and_names_are_lines(folder: Path) -> None:
    keep_base_emoji(folder)
    listed = emoji(folder, "google")
    assert sorted(file.name for file in folder.glob("*.png")) == sorted(one.file for one in listed)
    assert (folder / NAMES).read_text().splitlines() == [one.name for one in listed]
