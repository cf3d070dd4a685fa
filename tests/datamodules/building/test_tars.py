"""What a scan takes for a sample, and what it leaves out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.building.build import build
from datamodules.building.foreign import index
from datamodules.building.options import BuildOptions
from datamodules.building.tars import TarSample, TarScan


def tar(*members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def scanned(data: bytes) -> tuple[dict[str, TarSample], list[tuple[str, str]], TarScan]:
    scan = TarScan(io.BytesIO(data), "x.tar")
    found = {
        sample.key: sample for sample, image in scan if data[sample.offset : sample.offset + sample.length] == image
    }
    return found, [(entry.name, entry.reason) for entry in scan.left_out], scan


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_hidden_members_do_not_part_a_sample() -> None:
    found, left_out, scan = scanned(
        tar(("._1.cls", b"x"), ("1.cls", b"2"), ("._1.jpg", b"x"), ("1.jpg", b"image"), ("d/._1.txt", b"x"))
    )
    assert {key: sample.label for key, sample in found.items()} == {"1": "2"}
    assert left_out == []
    assert scan.hidden == 3


@pytest.mark.parametrize(
    ("members", "keys", "left_out"),
    [
        # numbers between the dots: names
        (["a 1.0.jpg", "a 1.0.cls", "a 1.1.jpg"], ["a 1.0", "a 1.1"], []),
        # one image: whatever the word
        (["1.input.jpg", "1.outputs.txt", "2.input.jpg"], ["1.input", "2.input"], []),
        # several, and words: nobody knows which
        (["1.input.jpg", "1.mask.png"], [], [("1", "several images in a sample, and none is KEY.jpg")]),
        (["1.mask.png", "1.jpg"], ["1"], [("1.mask.png", "another image of a sample")]),
        (["1.TIF", "2.Gif", "3.bmp"], ["1", "2", "3"], []),
        (["1.jpg", "1.jpg"], ["1"], [("1.jpg", "in the tar twice")]),
        (["1.heic", "1.cls"], [], [("1", "no image among its members")]),
    ],
)
def test_names_with_dots(members: list[str], keys: list[str], left_out: list[tuple[str, str]]) -> None:
    found, lost, _ = scanned(tar(*((name, b"1") for name in members)))
    assert list(found) == keys
    assert lost == left_out
    if "a 1.0" in keys:
        assert (found["a 1.0"].label, found["a 1.1"].label) == ("1", None)


def test_links_are_named() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
        archive.addfile(link)
    assert scanned(buffer.getvalue())[1] == [("2.jpg", "no plain file")]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_names_that_are_no_text(format: int) -> None:
    long, odd = "d/" + "ä" * 200, "caf\udce9"
    found, _, _ = scanned(tar((f"{long}.jpg", b"1"), (f"{long}.cls", b"7"), (f"{odd}.jpg", b"2"), format=format))
    assert list(found) == [long, "caf\\xe9"]
    assert found[long].label == "7"


def test_packed_tars(tmp_path: Path) -> None:
    """A build unpacks them; an index cannot, and says what they are."""
    data = tar(*((f"{number}.jpg", jpeg(number)) for number in range(3)))
    for name, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)):
        path = tmp_path / f"set.tar.{name}"
        path.write_bytes(pack(data))
        manifest = build(path, tmp_path / name, BuildOptions(splits="100"), workers=1, progress=False)
        assert manifest.splits["train"].samples == 3
        with pytest.raises(ValueError, match=f"is a {name} file"):
            index({"train": [str(path)]}, tmp_path / "index", workers=1, progress=False)
        path.write_bytes(path.read_bytes()[:-20])
        whole = bytearray(pack(data))
        whole[len(whole) // 2] ^= 0xFF
        for damaged in (path.read_bytes(), bytes(whole)):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{name}: .*damaged"):
                build(path, tmp_path / f"{name}-cut", BuildOptions(splits="100"), workers=1, progress=False)
            assert not (tmp_path / f"{name}-cut").exists()


def test_labels_and_captions_that_are_not_understood_are_named(tmp_path: Path) -> None:
    members = [("1.jpg", jpeg(1)), ("1.cls", b"-1"), ("2.jpg", jpeg(2)), ("2.cls", b"1"), ("3.jpg", jpeg(3))]
    members += [
        ("3.json", b'{"label": "001"}'),
        ("4.jpg", jpeg(4)),
        ("4.json", b'{"label": [1]}'),
        ("4.txt", b"\xff\xe9"),
    ]
    path = tmp_path / "a.tar"
    path.write_bytes(tar(*members))
    built = build(path, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
    indexed = index({"train": [str(path)]}, tmp_path / "index", workers=1, progress=False)
    for manifest in (built, indexed):
        assert manifest.classes == ("0", "1")
        assert sorted(manifest.index("train")["label"].tolist()) == [-1, -1, 1, 1]
        assert not manifest.captions
        text = (manifest.root / "report.txt").read_text("utf-8")
        assert "its caption is not UTF-8" in text
    with pytest.raises(ValueError, match="named twice"):
        index({"train": [str(path)], "val": [str(path)]}, tmp_path / "twice")
    copy = tmp_path / "b.tar"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"b\.tar: holds the same bytes as .*a\.tar"):
        index({"train": [str(path)], "val": [str(copy)]}, tmp_path / "twice", workers=1, progress=False)
    assert not (tmp_path / "twice").exists()


def test_a_damaged_header_is_not_taken_for_the_end() -> None:
    data = bytearray(tar(*[(f"{number}.jpg", jpeg(number)) for number in range(8)], format=tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=io.BytesIO(data)) as whole:
        fourth = whole.getmembers()[3].offset
    data[fourth + 148] ^= 1  # its checksum
    with pytest.raises(ValueError, match=rf"damaged at byte {fourth}, or two tars in one: \d+ bytes after it cannot"):
        scanned(bytes(data))


def test_a_second_tar_in_the_file_is_not_passed_over() -> None:
    first, second = (tar((f"{number}.jpg", jpeg(number))) for number in range(2))
    with pytest.raises(ValueError, match="two tars in one"):
        scanned(first + second)
    # Zeros at the end, as many as there may be, are no second tar.
    assert list(scanned(first + bytes(1 << 20))[0]) == ["0"]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_tar_without_its_end_mark_is_remarked_on(blocks: int, tmp_path: Path) -> None:
    data = tar(*[(f"{number}.jpg", jpeg(number)) for number in range(3)], format=tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(data)) as whole:
        last = whole.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    path = tmp_path / "x.tar"
    path.write_bytes(data[: end + blocks * 512])
    found, _, scan = scanned(path.read_bytes())
    assert list(found) == ["0", "1", "2"]
    said = f"ends at byte {end} without a tar's end mark: if it is a copy, compare its size"
    assert [said in line for line in scan.remarks] == ([True] if not blocks else [])
    if not blocks:
        built = build(path, tmp_path / "out", BuildOptions(splits="100"), workers=1, progress=False)
        indexed = index({"train": [str(path)]}, tmp_path / "index", workers=1, progress=False)
        for manifest in (built, indexed):
            assert f"{path}: {said}" in (manifest.root / "report.txt").read_text("utf-8")
