"""Builds, read back with tarfile, PIL and webdataset rather than with our own reader."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from datamodules.manifest import MANIFEST_NAME, Manifest
from gesso.cli.main import main

random = np.random.default_rng(0)


def picture(height: int = 24, width: int = 32, channels: int = 3) -> Image.Image:
    noise = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(noise[:, :, 0] if channels == 1 else noise)


def photographs(folder: Path, count: int, height: int = 24, width: int = 32) -> Path:
    for number in range(count):
        file = folder / f"{'ab'[number % 2]}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(height, width).save(file)
    return folder


def contents(out: Path) -> dict[str, str]:
    """Checksums of everything that a build leaves."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def samples(out: Path, split: str = "train") -> list[dict[str, bytes]]:
    """Samples of a split as a plain tar reader finds them: extension -> bytes."""
    found: dict[str, dict[str, bytes]] = {}
    for tar in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, extension = member.name.split(".", 1)
                stream = archive.extractfile(member)
                assert stream is not None
                found.setdefault(key, {})[extension] = stream.read()
    return list(found.values())


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


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


def test_a_grey_image_and_its_colour_copy_are_duplicates(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    image = picture(channels=1)
    image.save(root / "1.png")
    image.convert("RGB").save(root / "2.png")
    build(root, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["dropped_by_reason"] == {"duplicate": 1}


def test_from_tars(tmp_path: Path) -> None:
    """A shard set made of another set's tars has its images, labels and captions."""
    root = photographs(tmp_path / "in", 12)
    (root / "a" / "0000.txt").write_text("the first")
    build(root, tmp_path / "first", BuildOptions(splits="100", samples_per_shard=5, format="png"), workers=1)
    tars = f"{tmp_path}/first/train-0000{{0..2}}.tar"
    build(tars, tmp_path / "second", BuildOptions(splits="100", format="png"), workers=1, progress=False)
    assert samples(tmp_path / "second") == samples(tmp_path / "first")


class Interrupted:
    """`gesso shards build` in a process of its own, to be struck down."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "gesso.cli.main", "shards", "build", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def strike(self, when: Path, blow: signal.Signals) -> str:
        """Strikes the whole process group as soon as ``when`` exists; returns what it said."""
        while not when.exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.001)
        os.killpg(self.process.pid, blow)
        return self.process.communicate()[1]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_struck_down_thrice_it_ends_with_the_same_bytes(workers: str, tmp_path: Path) -> None:
    root = photographs(tmp_path / "in", 240, 96, 96)
    options = ["--size", "64", "--samples-per-shard", "20", "--format", "png"]
    reference, out = tmp_path / "reference", tmp_path / "out"
    assert main(["shards", "build", str(root), str(reference), *options, "--workers", "1"]) == 0
    command = (str(root), str(out), *options, "--workers", workers)
    Interrupted(*command).strike(out / ".build" / "journal.sqlite", signal.SIGKILL)
    said = Interrupted(*command).strike(out / "train-00001.tar", signal.SIGINT)
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list(out.glob("*.partial"))
    assert not (out / MANIFEST_NAME).exists()
    first = (out / "train-00000.tar").stat().st_ino
    said = Interrupted(*command).strike(out / "train-00005.tar", signal.SIGKILL)
    assert "going on" in said
    assert not (out / MANIFEST_NAME).exists()
    assert main(["shards", "build", *command]) == 0
    assert contents(out) == contents(reference)
    assert (out / "train-00000.tar").stat().st_ino == first  # not written again


def test_a_change_of_options_or_source_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "in", 60)
    out = tmp_path / "out"
    command = ["shards", "build", str(root), str(out), "--samples-per-shard", "10", "--workers", "1"]
    Interrupted(*command[2:], "--size", "24").strike(out / "train-00000.tar", signal.SIGKILL)
    picture().save(root / "a" / "0000.png")
    assert main([*command, "--size", "16", "--format", "png", "--no-classes"]) == 0
    assert "starting anew" in capsys.readouterr().err
    assert {pixels(sample["png"]).shape for sample in samples(out)} == {(16, 16, 3)}

    assert main([*command, "--size", "16", "--format", "png", "--no-classes"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    before = contents(out)
    assert main([*command, "--size", "24"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*command, "--size", "24", "--overwrite"]) == 0
    assert {pixels(sample["jpg"]).shape for sample in samples(out)} == {(24, 24, 3)}


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second shard goes to a device that is always full: one line, the first shard stays, nothing half-made."""
    root = photographs(tmp_path / "in", 60)
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    (out / "train-00001.tar.partial").symlink_to("/dev/full")
    command = ["shards", "build", str(root), str(out), "--samples-per-shard", "20", "--splits", "100", "--workers", "1"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "disk is full" in said
    assert str(out) in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == [".build", "train-00000.tar"]
    assert main(command) == 0
    assert main(["shards", "build", str(root), str(tmp_path / "reference"), *command[4:]]) == 0
    assert contents(out) == contents(tmp_path / "reference")


def test_one_line_for_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.jpg").write_text("no image")
    full = photographs(tmp_path / "full", 4)
    for arguments, expected in [
        ([str(tmp_path / "nowhere"), str(out)], "nowhere: no such folder"),
        ([str(empty), str(out)], "it is empty"),
        ([str(bad), str(out)], "1 undecodable: x.jpg"),
        ([str(full), str(full)], "both source and target"),
        ([str(full), str(full / "a" / "0000.png")], "is a file"),
        ([str(full), str(out), "--size", "0"], "size 0"),
        ([str(full), str(out), "--splits", "80-20"], "80/10/10"),
        ([str(full), str(out), "--splits", "official"], "no official splits"),
        ([str(full), str(out), "--quality", "101"], "quality 101"),
        ([str(full), str(out), "--workers", "0"], "--workers 0"),
        ([str(full), str(out), "--restart-markers", "--format", "png"], "add --format jpg"),
    ]:
        assert main(["shards", "build", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1
        assert not out.exists()


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


def test_a_second_build_waits_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    command = ["shards", "build", str(photographs(tmp_path / "in", 4)), str(out), "--splits", "100", "--workers", "1"]
    with FileLock(out / ".build" / "lock"):
        assert main(command) == 2
    assert "another build" in capsys.readouterr().err
    assert main(command) == 0


def test_paintings_by_name(tmp_path: Path) -> None:
    manifest = build("terminal_museum", tmp_path / "out", BuildOptions(size=64), workers=2, progress=False)
    assert sum(split.samples for split in manifest.splits.values()) == 174
    assert (manifest.size, manifest.channels, manifest.classes) == ((64, 64), 3, ())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "channels"), [("mnist", 32, 1), ("cifar10", None, 3)])
def test_named_sets_keep_their_official_splits(name: str, size: int | None, channels: int, tmp_path: Path) -> None:
    """Also the test images that CIFAR-10 has in both splits. Class counts as published."""
    manifest = build(name, tmp_path / "out", BuildOptions(size=size), workers=2, progress=False)
    train = 60_000 if name == "mnist" else 50_000
    assert {split: entry.samples for split, entry in manifest.splits.items()} == {"train": train, "test": 10_000}
    assert (manifest.size, manifest.channels, len(manifest.classes)) == ((32, 32), channels, 10)
    counts = np.bincount(manifest.index("test")["label"]).tolist()
    mnist = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert counts == (mnist if name == "mnist" else [1000] * 10)
    if name == "cifar10":
        from datamodules.assets.fetching import fetch

        raw = np.fromfile(fetch("cifar10") / "test_batch.bin", np.uint8).reshape(10_000, 3073)
        originals = {row.tobytes() for row in raw}
        for sample in samples(tmp_path / "out", "test")[:100]:
            image = pixels(sample["png"]).transpose(2, 0, 1).tobytes()
            assert bytes([int(sample["cls"])]) + image in originals
