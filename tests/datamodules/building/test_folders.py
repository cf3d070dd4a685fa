"""Folders and zips as people have them: what is taken, what is left out and how it is called."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.building.build import build
from datamodules.building.candidates import Extent, Item, Skipped
from datamodules.building.folders import FolderSource, ZipSource, is_zip
from datamodules.building.options import BuildOptions
from datamodules.building.samples import examine
from datamodules.manifest import Manifest


def png(seed: int, height: int = 8, width: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def made(source: Path, out: Path, **options: Any) -> tuple[Manifest, dict[str, Any], str]:
    manifest = build(source, out, BuildOptions(splits="100", **options), workers=1, progress=False)
    return manifest, json.loads((out / "report.json").read_text("utf-8")), (out / "report.txt").read_text("utf-8")


def labels(manifest: Manifest) -> list[int]:
    return sorted(manifest.index("train")["label"].tolist())


def test_links_to_nothing_pipes_and_folders_with_a_picture_s_name(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"a/1.png": png(1), "a/dir.png/2.png": png(2)})
    (root / "a" / "lost.jpg").symlink_to("/nowhere/x")
    (root / "a" / "1.txt").symlink_to("/nowhere/y")
    (root / "a" / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "a" / "pipe.jpg")
    _, report, text = made(root, tmp_path / "out")
    assert {(entry["name"], entry["reason"]) for entry in report["dropped"]} == {
        ("a/lost.jpg", "unreadable"),
        ("a/loop.png", "unreadable"),
        ("a/pipe.jpg", "no plain file"),
    }
    assert [entry["name"] for entry in report["not_understood"]] == ["a/1.png"]
    assert report["kept"] == 2
    assert "a link to nothing" in text
    assert "a named pipe" in text


def test_captions_in_every_encoding(tmp_path: Path) -> None:
    files = {f"{number}.JPG": png(number) for number in range(5)}
    files |= {
        "0.txt": b"\xef\xbb\xbfa cat\r\n",
        "1.TXT": "ein Kätzchen".encode("utf-16"),
        "2.txt": "café".encode("latin-1"),
        "3.Txt": "猫".encode(),
        "alone.txt": b"of nothing",
        "._0.JPG": b"\0\5\26\7",
    }
    out = tmp_path / "out"
    manifest, report, text = made(write(tmp_path / "in", files), out)
    data = (out / "train-00000.tar").read_bytes()
    rows = manifest.index("train")
    captions = {data[row["caption_offset"] : row["caption_offset"] + row["caption_length"]].decode() for row in rows}
    assert captions == {"a cat", "ein Kätzchen", "猫", ""}
    assert [entry["name"] for entry in report["not_understood"]] == ["2.JPG"]
    assert [entry["name"] for entry in report["dropped"]] == ["alone.txt"]
    assert "1 hidden files" in text


def test_numbered_folders_are_sorted_as_numbers(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {f"{name}/x.png": png(int(name)) for name in ("10", "2", "1")})
    assert made(root, tmp_path / "out")[0].classes == ("1", "2", "10")


def stylegan(entries: Any) -> dict[str, bytes]:
    files = {f"{number // 2:05d}/img{number:08d}.png": png(number) for number in range(6)}
    return files | {"dataset.json": json.dumps({"labels": entries}).encode()}


ENTRIES = [[f"{number // 2:05d}/img{number:08d}.png", number % 3] for number in range(6)]


@pytest.mark.parametrize("kind", ["folder", "deflated", "stored", "in one folder"])
def test_stylegan_s_labels(kind: str, tmp_path: Path) -> None:
    files = stylegan(ENTRIES)
    if kind == "folder":
        source = write(tmp_path / "in", files)
    elif kind == "in one folder":
        source = zipped(tmp_path / "in.zip", {f"set/{name}": data for name, data in files.items()})
    else:
        source = zipped(tmp_path / "in.zip", files, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED)
    manifest, report, _ = made(source, tmp_path / "out", format="png")
    assert manifest.classes == ("0", "1", "2")
    assert labels(manifest) == [0, 0, 1, 1, 2, 2]
    assert report["dropped"] == []
    found = {bytes(data) for name, data in files.items() if name.endswith("png")}
    pixels = {np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in found}
    tar = (tmp_path / "out" / "train-00000.tar").read_bytes()
    stored = [tar[row["offset"] : row["offset"] + row["length"]] for row in manifest.index("train")]
    assert {np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in stored} == pixels


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (None, "dataset.json has no labels"),
        ([[name, [0.0, 1.0]] for name, _ in ENTRIES], "are vectors"),
        ([*ENTRIES[:-1], ["gone.png", 1]], "1 labels of dataset.json belong to no image"),
        ([*ENTRIES, [ENTRIES[0][0], 1]], "kept, but dataset.json lists it with two labels, 0 and 1: none: 1"),
        ([*ENTRIES, ENTRIES[0]], "1 files are listed twice in dataset.json, with the same label"),
        ([*ENTRIES[:-1], [ENTRIES[5][0], True]], "kept, but label true is neither a number from 0 nor a name: none: 1"),
        ([*ENTRIES[:-1], [ENTRIES[5][0], "0x1"]], "kept, but label '0x1' is neither a number from 0 nor a name"),
        ([*ENTRIES[:-1], [ENTRIES[5][0], "cat"]], "labels mix 3 numbers (such as 0) and 1 names (such as cat)"),
    ],
)
def test_labels_of_stylegan_that_are_none(entries: Any, said: str, tmp_path: Path) -> None:
    manifest, report, text = made(write(tmp_path / "in", stylegan(entries)), tmp_path / "out")
    assert said in text
    assert "00000" not in manifest.classes
    assert report["kept"] == 6
    if said.startswith("1 labels"):
        assert "kept, but no label in dataset.json: 1" in text


def test_a_zip_s_entries_that_cannot_be_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a/1.png": png(1), "a/2.png": png(2)}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("b/3.png", png(3))
        archive.writestr("__MACOSX/b/._3.png", b"")
    items = list(ZipSource(path).items())
    assert [item.name for item in items if isinstance(item, Item)] == ["a/1.png", "a/2.png"]
    assert [(item.name, item.reason) for item in items if isinstance(item, Skipped)] == [("b/3.png", "unreadable")]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged zip"):
        list(ZipSource(path).items())


def test_names_in_zips_as_people_s_programs_write_them(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cats\\1.png", "cats\\2.png", "dogs\\3.png"):
            archive.writestr(name, png(len(archive.namelist())))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cats\\1.png", png(7))
    items = list(ZipSource(path).items())
    assert {(item.name, item.label) for item in items if isinstance(item, Item)} == {
        ("cats/1.png", "cats"),
        ("cats/2.png", "cats"),
        ("dogs/3.png", "dogs"),
    }
    assert [item for item in items if isinstance(item, Skipped)] == [
        Skipped("cats/1.png", "in the zip twice", "the last is taken")
    ]
    absolute = zipped(tmp_path / "abs.zip", {"/a/1.png": png(1), "b//2.png": png(2), "../c/3.png": png(3)})
    found = [item for item in ZipSource(absolute).items() if isinstance(item, Item)]
    assert {(item.name, item.label) for item in found} == {("a/1.png", "a"), ("b/2.png", "b")}


def test_a_zip_s_sums_are_compared(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"a/1.png": png(1), "b/2.png": png(2), "b/2.txt": b"text"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(1)) + 60] ^= 1
    path.write_bytes(data)
    manifest, report, _ = made(path, tmp_path / "out")
    assert manifest.splits["train"].samples == 1
    (dropped,) = report["dropped"]
    assert dropped == {
        "name": "a/1.png",
        "reason": "unreadable",
        "detail": "damaged in its zip: another checksum than it says",
    }


def test_what_a_small_zip_would_grow_to_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = bytes(40 << 20)
    files = {"a/1.png": png(1), "b/zeros.png": bomb, "b/picture.png": png(2) + bomb, "b/strip.tif": b"II*\0" + bomb}
    path = zipped(tmp_path / "in.zip", files)
    inflated: list[int] = []
    read = Extent.read

    def counted(extent: Extent) -> bytes:
        inflated.append(extent.size())
        return read(extent)

    monkeypatch.setattr(Extent, "read", counted)
    source = ZipSource(path)
    items = [(number, item) for number, item in enumerate(source.items()) if isinstance(item, Item)]
    found = examine(source, BuildOptions(max_pixels=10_000, format="png"), items)
    named = {item.name: result.reason for (_, item), result in zip(items, found, strict=True)}
    assert named.pop("a/1.png") is None
    assert named == {"b/zeros.png": "undecodable", "b/picture.png": "too large", "b/strip.tif": "too large"}
    assert sum(inflated) < 10_000


def test_zips_that_are_empty_or_behind_a_program(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "in.zip", {"a/1.png": png(1), "b/2.png": png(2)})
    program = tmp_path / "unpacks.exe"
    program.write_bytes(b"#!/bin/sh\n" * 100 + whole.read_bytes())
    manifest, _, _ = made(program, tmp_path / "out")
    assert manifest.classes == ("a", "b")
    with pytest.raises(ValueError, match=r"empty\.zip: no image to keep \(it is empty\)"):
        made(zipped(tmp_path / "empty.zip", {}), tmp_path / "none")
    # A tar that holds a zip is a tar.
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(whole, "a.zip")
    assert not is_zip(tmp_path / "x.tar")


def test_shards_inside_the_source_are_no_pictures(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"a/1.png": png(1), "b/2.png": png(2)})
    first, _, _ = made(root, root / "shards")
    (root / "shards" / "contact_sheet.png").write_bytes(png(3))
    again, report, _ = made(root, root / "shards")
    assert again.provenance == first.provenance  # nothing to do
    other, report, _ = made(root, tmp_path / "other")
    assert other.classes == ("a", "b")
    assert [entry["name"] for entry in report["dropped"]] == ["shards/"]
    with pytest.raises(ValueError, match="is a shard set itself"):
        list(FolderSource(root / "shards").items())


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"bilder\xe9")
    write(root, {os.fsdecode(b"caf\xe9/a\nb.png"): png(1), os.fsdecode(b"x\xe9.pdf"): b""})
    manifest, report, text = made(root, tmp_path / os.fsdecode(b"aus\xe9"))
    assert manifest.classes == ("caf\\xe9",)
    assert "x\\xe9.pdf" in text
    assert made(root, tmp_path / os.fsdecode(b"aus\xe9"))[1] == report


def test_duplicates_are_kept_when_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"a/1.png": png(1), "b/2.png": png(1), "b/3.png": png(2)})
    _, report, text = made(root, tmp_path / "out")
    assert report["kept"] == 2
    assert "--keep-duplicates" in text
    manifest, report, _ = made(root, tmp_path / "all", keep_duplicates=True)
    assert (report["kept"], report["duplicates_kept"], report["dropped"]) == (3, 1, [])
    assert labels(manifest) == [0, 1, 1]


def test_what_is_lost_with_a_duplicate_is_said(tmp_path: Path) -> None:
    files = {"a/1.png": png(1), "a/1.txt": b"one", "a/2.png": png(2), "a/3.png": png(3), "a/3.txt": b"three"}
    # The same picture with another label and caption; with a caption where the first has none; with nothing to lose.
    files |= {"b/1.png": png(1), "b/1.txt": b"eins", "a/4.png": png(2), "a/4.txt": b"two", "a/5.png": png(3)}
    root = write(tmp_path / "in", files)
    _, report, text = made(root, tmp_path / "out")
    assert {entry["name"]: entry["detail"] for entry in report["dropped"]} == {
        "b/1.png": "the same pixels as a/1.png, labelled a there and b here, with another caption there",
        "a/4.png": "the same pixels as a/2.png, without a caption there and with one here",
        "a/5.png": "the same pixels as a/3.png",
    }
    assert "1 of the dropped duplicates have another label than the picture that stands for it" in text
    assert "2 of the dropped duplicates have another caption than the picture that stands for it" in text
    _, _, text = made(root, tmp_path / "without", captions=False)
    assert "another caption" not in text


def test_pictures_that_no_format_can_hold_are_left_out(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"wide.png": png(1, 2, 17_000), "thin.png": png(2, 3, 6_000), "good.png": png(3)})
    for name, options, lost in (
        ("webp", {"format": "webp"}, {"wide.png"}),
        ("shortest", {"size": 64, "resize": "shortest"}, {"wide.png", "thin.png"}),
        ("png", {"format": "png"}, set()),
    ):
        _, report, _ = made(root, tmp_path / name, **options)
        assert {entry["name"] for entry in report["dropped"]} == lost
        assert {entry["reason"] for entry in report["dropped"]} <= {"too large"}


def test_a_damaged_journal_is_begun_anew(tmp_path: Path) -> None:
    journal = write(tmp_path / "out", {".build/journal.sqlite": b"garbage" * 1000})
    _, report, _ = made(write(tmp_path / "in", {"1.png": png(1)}), journal)
    assert report["kept"] == 1
