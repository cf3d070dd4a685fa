"""Builds, read back with tarfile, PIL and webdataset rather than with our own reader."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from datamodules.manifest import Manifest
from gesso.cli.main import main
from tests.datamodules.building.made import contents, photographs, picture, pixels, samples


def test_a_folder_with_everything_wrong_in_it(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "cats" / "deep").mkdir(parents=True)
    (root / "dogs").mkdir()
    cat, dog = picture(), picture()
    cat.save(root / "cats" / "deep" / "one.png")
    (root / "cats" / "deep" / "one.txt").write_text("a cat, ein Kätzchen\n")
    cat.save(root / "dogs" / "copy of one.tiff")
    dog.save(root / "dogs" / "two.png")
    picture(9, 40).save(root / "dogs" / "flat.png")
    picture(60, 60).save(root / "dogs" / "huge.png")
    (root / "dogs" / "text.jpg").write_text("no image")
    (root / "dogs" / "notes.pdf").write_text("%PDF")
    (root / "dogs" / ".hidden").write_text("")
    whole = io.BytesIO()
    picture().save(whole, "JPEG")
    (root / "dogs" / "cut.jpg").write_bytes(whole.getvalue()[:400])

    out = tmp_path / "out"
    options = BuildOptions(splits="100", format="png", min_size=10, max_pixels=3000)
    manifest = build(root, out, options, workers=1, progress=False)
    assert manifest == Manifest.load(out)
    assert manifest.classes == ("cats", "dogs")
    assert (manifest.channels, manifest.size, manifest.captions) == (3, (24, 32), True)

    report = json.loads((out / "report.json").read_text())
    assert {(entry["name"], entry["reason"]) for entry in report["dropped"]} == {
        ("dogs/copy of one.tiff", "duplicate"),
        ("dogs/cut.jpg", "truncated"),
        ("dogs/flat.png", "too small"),
        ("dogs/huge.png", "too large"),
        ("dogs/notes.pdf", "not an image file"),
        ("dogs/text.jpg", "undecodable"),
    }
    assert (report["candidates"], report["kept"]) == (8, 2)
    assert "cats/deep/one.png" in (out / "report.txt").read_text()  # of what the duplicate is one

    by_label = {sample["cls"]: sample for sample in samples(out)}
    np.testing.assert_array_equal(pixels(by_label[b"0"]["png"]), np.asarray(cat))
    np.testing.assert_array_equal(pixels(by_label[b"1"]["png"]), np.asarray(dog))
    assert by_label[b"0"]["txt"].decode() == "a cat, ein Kätzchen"
    assert "txt" not in by_label[b"1"]
    assert not (out / ".build").exists()


def test_the_index_points_into_the_tars(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = BuildOptions(size=16, samples_per_shard=7, format="webp", splits="70/20/10")
    manifest = build(photographs(tmp_path / "in", 40), out, options, workers=1, progress=False)
    assert sum(split.samples for split in manifest.splits.values()) == 40
    for name, split in manifest.splits.items():
        rows = iter(manifest.index(name))
        for shard in split.shards:
            data = (out / shard.url).read_bytes()
            assert hashlib.sha256(data).hexdigest() == shard.sha256
            assert len(data) == shard.bytes
            assert shard.samples <= 7
            for ordinal in range(shard.samples):
                row = next(rows)
                image = data[row["offset"] : row["offset"] + row["length"]]
                assert pixels(image).shape == (16, 16, 3)
                assert row["key"] == ordinal
                assert row["label"] in (0, 1)
        assert next(rows, None) is None


def test_webdataset_reads_it(tmp_path: Path) -> None:
    import webdataset

    out = tmp_path / "out"
    build(photographs(tmp_path / "in", 12), out, BuildOptions(splits="100", samples_per_shard=5), workers=1)
    urls = sorted(str(tar) for tar in out.glob("*.tar"))
    found = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls"))
    assert len(found) == 12
    assert {image.shape for image, _ in found} == {(24, 32, 3)}
    assert sorted(label for _, label in found) == [0] * 6 + [1] * 6


@pytest.mark.process
def test_workers_and_names_do_not_matter(tmp_path: Path) -> None:
    """One worker or three, and files renamed: the same shards, byte for byte (labels off: they come from names)."""
    root = photographs(tmp_path / "in", 90)
    options = BuildOptions(size=16, samples_per_shard=20, classes=False)
    build(root, tmp_path / "one", options, workers=1, progress=False)
    build(root, tmp_path / "three", options, workers=3, progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        file.rename(root / f"{(number * 37) % 90}.png")
    build(root, tmp_path / "renamed", options, workers=1, progress=False)
    renamed = contents(tmp_path / "renamed")
    assert {name: renamed[name] for name in renamed if name.endswith(".tar")} == {
        name: sums for name, sums in contents(tmp_path / "one").items() if name.endswith(".tar")
    }


@pytest.mark.slow
def test_splits_depend_on_content_alone(tmp_path: Path) -> None:
    """Adding images moves none of the others to another split; shares come out as asked."""
    root = photographs(tmp_path / "in", 400, 8, 8)
    options = BuildOptions(format="png", splits="80/10/10")

    def split_of(out: Path) -> dict[bytes, str]:
        build(root, out, options, workers=1, progress=False)
        return {sample["png"]: split for split in ("train", "val", "test") for sample in samples(out, split)}

    before = split_of(tmp_path / "before")
    photographs(tmp_path / "in" / "more", 100, 8, 8)
    after = split_of(tmp_path / "after")
    assert len(before) == 400
    assert len(after) == 500
    assert all(after[image] == split for image, split in before.items())
    train = sum(split == "train" for split in before.values())
    assert 290 <= train <= 350  # 320 ± 3.75 standard deviations


def test_jpegs_that_need_no_change_stay_byte_for_byte(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    picture(16, 16).save(root / "fits.jpg", quality=60)
    picture(16, 24).save(root / "wide.jpg", quality=60)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(16, 16).save(root / "turned.jpg", quality=60, exif=exif)
    originals = {name: (root / f"{name}.jpg").read_bytes() for name in ("fits", "wide", "turned")}

    build(root, tmp_path / "sized", BuildOptions(size=16, splits="100"), workers=1, progress=False)
    sized = {sample["jpg"] for sample in samples(tmp_path / "sized")}
    assert originals["fits"] in sized
    assert originals["turned"] not in sized
    assert {pixels(data).shape for data in sized} == {(16, 16, 3)}

    build(root, tmp_path / "asis", BuildOptions(splits="100"), workers=1, progress=False)
    asis = {sample["jpg"] for sample in samples(tmp_path / "asis")}
    assert {originals["fits"], originals["wide"]} <= asis
    assert originals["turned"] not in asis


def test_restart_markers_change_no_pixel(tmp_path: Path) -> None:
    """Neither of JPEGs that stay what they are, nor of those that the build encodes."""
    root = tmp_path / "in"
    root.mkdir()
    picture(64, 64).save(root / "fits.jpg", quality=60)
    picture(80, 64).save(root / "high.png")
    for size in (None, 64):
        built = {}
        for markers in (False, True):
            out = tmp_path / f"{size}-{markers}"
            options = BuildOptions(size=size, splits="100", restart_markers=markers)
            build(root, out, options, workers=1, progress=False)
            built[markers] = [sample["jpg"] for sample in samples(out)]
        assert len(built[True]) == 2
        for plain, marked in zip(*built.values(), strict=True):
            assert b"\xff\xdd" in marked
            assert b"\xff\xdd" not in plain[: plain.index(b"\xff\xda")]
            assert np.array_equal(pixels(plain), pixels(marked))


def test_channels_follow_the_images(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(4):
        picture(channels=1).save(root / f"{number}.png")
    grey = BuildOptions(splits="100", format="png")
    assert build(root, tmp_path / "grey", grey, workers=1, progress=False).channels == 1
    picture().save(root / "colour.png")
    assert build(root, tmp_path / "mixed", grey, workers=1, progress=False).channels == 3
    assert {pixels(sample["png"]).shape for sample in samples(tmp_path / "mixed")} == {(24, 32, 3)}
    forced = BuildOptions(splits="100", format="png", channels=1)
    assert build(root, tmp_path / "forced", forced, workers=1, progress=False).channels == 1
    assert {pixels(sample["png"]).shape for sample in samples(tmp_path / "forced")} == {(24, 32)}


def test_a_split_without_images_says_how_many_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty pictures that are all alike: 39 are left out, or all go to one split."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(40):
        Image.new("RGB", (16, 16)).save(root / f"{number}.png")
    command = ["shards", "build", str(root), str(tmp_path / "out"), "--workers", "1"]
    assert main([*command, "--splits", "1/98/1"]) == 2
    said = "no image fell into train: there is only 1 (39 duplicate left out, which --keep-duplicates keeps); --splits"
    assert said in capsys.readouterr().err
    assert main([*command, "--splits", "1/98/1", "--keep-duplicates"]) == 2
    said = "there are only 40, of which 1 differ: those with the same pixels go together; --splits 100 puts all there"
    assert said in capsys.readouterr().err
    assert main([*command, "--splits", "98/1/1"]) == 0
    assert "no image fell into val: there is only 1 (39 duplicate left out" in capsys.readouterr().err


def test_a_grey_image_and_its_colour_copy_are_duplicates(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    image = picture(channels=1)
    image.save(root / "1.png")
    image.convert("RGB").save(root / "2.png")
    build(root, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["dropped_by_reason"] == {"duplicate": 1}


def test_labels_that_contradict_each_other_or_are_missing_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("a/one.png", "a/two.png", "b/three.png", "root.png")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number * 60, 0, 0)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "one.png").write_bytes((tmp_path / "in" / "a" / "one.png").read_bytes())
    build(tmp_path / "in", tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    text = (tmp_path / "out" / "report.txt").read_text()
    assert "b/one.png  (the same pixels as a/one.png, labelled a there and b here)" in text
    assert "no label: 1 of 4 images" in text


def test_from_tars(tmp_path: Path) -> None:
    """A shard set made of another set's tars has its images, labels and captions."""
    root = photographs(tmp_path / "in", 12)
    (root / "a" / "0000.txt").write_text("the first")
    build(root, tmp_path / "first", BuildOptions(splits="100", samples_per_shard=5, format="png"), workers=1)
    tars = f"{tmp_path}/first/train-0000{{0..2}}.tar"
    build(tars, tmp_path / "second", BuildOptions(splits="100", format="png"), workers=1, progress=False)
    assert samples(tmp_path / "second") == samples(tmp_path / "first")


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in (b"\xff\xfe.png", "naïve 絵 \n.png".encode(), b"'; DROP TABLE items; --.png"):
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        (root / os.fsdecode(name)).write_bytes(buffer.getvalue())
    (root / os.fsdecode(b"bad\xff.jpg")).write_text("no image")
    manifest = build(root, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    assert manifest.splits["train"].samples == 3
    [dropped] = json.loads((tmp_path / "out" / "report.json").read_text())["dropped"]
    assert dropped["name"] == "bad\\xff.jpg"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = photographs(tmp_path / "in", 4)
    (root / "a" / "again").symlink_to(root)
    manifest = build(root, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    assert manifest.splits["train"].samples == 4
