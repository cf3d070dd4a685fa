"""The journal: what it finds, and what it lives through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tests.launch.provenance.signers import pixels

pytest.importorskip("pdqhash")

from launch.provenance.journal import Fingerprint, Journal, enter


def journal_of(tmp_path: Path, count: int = 12) -> Path:
    journal = tmp_path / "new" / "fingerprints.jsonl"
    for seed in range(count):
        file = tmp_path / f"{seed}.png"
        Image.fromarray(pixels(128, seed)).save(file)
        enter(journal, file, pixels(128, seed), {"run": "r", "seed": seed, "other": 1})
    return journal


def test_pictures_are_found_after_what_is_commonly_done_to_them(tmp_path: Path) -> None:
    known = Journal(journal_of(tmp_path))
    for seed in range(12):
        picture = Image.fromarray(pixels(128, seed))
        for changed in (
            picture.resize((64, 64)),
            picture.filter(ImageFilter.GaussianBlur(2)),
            ImageEnhance.Brightness(picture).enhance(0.8),
        ):
            found = known.find(np.asarray(changed))
            assert found is not None
            assert found.file == f"{seed}.png"
            assert found.distance <= 31
    assert known.find(np.asarray(picture.convert("L"))[..., None]) is not None
    assert all(known.find(pixels(128, seed)) is None for seed in range(100, 130))


def test_a_line_that_a_killed_writer_began_costs_no_other(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, 2)
    with journal.open("a") as stream:
        stream.write('{"file": "half.png", "pdq": "00')
    third = tmp_path / "third.png"
    third.touch()
    enter(journal, third, pixels(128, 50), {})
    found = Journal(journal).find(pixels(128, 50))
    assert found is not None
    assert (found.file, found.distance) == ("third.png", 0)
    assert len(Journal(journal)) == 3


def test_lines_of_strangers_are_passed_over_and_safe_to_print(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    pdq = Fingerprint.of(pixels(128)).bits.tobytes().hex()
    journal.write_text(
        "[]\n{}\nnull\n"
        '{"pdq": 3, "quality": 90}\n{"pdq": "zz", "quality": 90}\n{"pdq": "00", "quality": 90}\n'
        f'{{"pdq": "{pdq}", "quality": "90"}}\n{{"pdq": "{pdq}", "quality": 90, "file": "a\\u001b[31m"}}\n'
    )
    found = Journal(journal).find(pixels(128))
    assert found is not None
    assert found.file == "a?[31m"
    with pytest.raises(FileNotFoundError, match="no such journal"):
        Journal(tmp_path / "none")


def test_pictures_of_one_colour_are_like_none(tmp_path: Path) -> None:
    flat, file = np.full((64, 64, 1), 90, np.uint8), tmp_path / "flat.png"
    file.touch()
    enter(tmp_path / "j", file, flat, {})
    assert Journal(tmp_path / "j").find(np.full((64, 64, 3), 200, np.uint8)) is None
