"""Tars that webdataset wrote, indexed where they lie."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.building.foreign import index
from datamodules.building.labels import class_names
from datamodules.building.tars import TarScan
from datamodules.manifest import Manifest
from gesso.cli.main import main

random = np.random.default_rng(0)


def jpeg(height: int = 20, width: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> list[tuple[Path, list[dict[str, object]]]]:
    """Two tars by webdataset's own writer, and what is in them."""
    import webdataset

    made = []
    for number in range(2):
        path = tmp_path / "tars" / f"data-{number}.tar"
        path.parent.mkdir(exist_ok=True)
        samples: list[dict[str, object]] = [
            {"__key__": f"{number}/{item:03d}", "jpg": jpeg(), "cls": item % 3, "txt": f"caption {item}"}
            for item in range(5)
        ]
        with webdataset.TarWriter(str(path)) as writer:
            for sample in samples:
                writer.write(sample)
        made.append((path, samples))
    return made


Tars = list[tuple[Path, list[dict[str, object]]]]


def read_back(manifest: Manifest, split: str, get: dict[str, bytes]) -> list[tuple[bytes, int, str]]:
    """(image, label, caption) by the offsets of the index."""
    found = []
    rows = iter(manifest.index(split))
    for shard in manifest.splits[split].shards:
        data = get[shard.url]
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        for _ in range(shard.samples):
            row = next(rows)
            image = data[row["offset"] : row["offset"] + row["length"]]
            caption = data[row["caption_offset"] : row["caption_offset"] + row["caption_length"]]
            found.append((image, int(row["label"]), caption.decode()))
    return found


@pytest.mark.process
def test_local_tars(tars: Tars, tmp_path: Path) -> None:
    (first, inside), (second, other) = tars
    manifest = index({"train": [str(first)], "val": [str(second.parent / "data-{1..1}.tar")]}, tmp_path / "out")
    assert manifest == Manifest.load(tmp_path / "out")
    assert (manifest.size, manifest.channels, manifest.captions) == ((20, 30), 3, True)
    assert manifest.classes == ("0", "1", "2")
    contents = {str(path): path.read_bytes() for path in (first, second)}
    for split, samples in (("train", inside), ("val", other)):
        expected = [(sample["jpg"], sample["cls"], sample["txt"]) for sample in samples]
        assert read_back(manifest, split, contents) == expected


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.process
def test_http_and_pipe(tars: Tars, site: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url, pipe = f"{site}/tars/data-0.tar", f"pipe:cat {tars[1][0]}"
    assert main(["shards", "index", url, pipe, "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    contents = {url: tars[0][0].read_bytes(), pipe: tars[1][0].read_bytes()}
    found = read_back(Manifest.load(tmp_path / "out"), "train", contents)
    assert [image for image, _, _ in found] == [sample["jpg"] for _, samples in tars for sample in samples]
    capfd.readouterr()
    assert main(["shards", "inspect", str(tmp_path / "out")]) == 2
    assert "allow" in capfd.readouterr().err  # commands of a manifest run only when asked for
    assert main(["shards", "index", f"{site}/missing.tar", "--out", str(tmp_path / "none"), "--workers", "1"]) == 1
    said = capfd.readouterr().err
    assert f"{site}/missing.tar: cannot be read" in said
    assert not (tmp_path / "none").exists()


def test_build_from_http(tars: Tars, site: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["shards", "build", f"{site}/tars/data-0.tar", str(out), "--splits", "100", "--workers", "1"]
    assert main(arguments) == 0
    with tarfile.open(out / "train-00000.tar") as tar:
        images = {tar.extractfile(member).read() for member in tar if member.name.endswith("jpg")}  # type: ignore[union-attr]
    assert images == {sample["jpg"] for sample in tars[0][1]}


def test_truncation_names_the_shard_and_the_byte(
    tars: Tars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at every kind of place: in an image, in a header, in padding."""
    path = tars[0][0]
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        member = [member for member in tar if member.name.endswith("jpg")][3]
    for cut in (member.offset_data + 100, member.offset + 100, member.offset_data + 512):
        path.write_bytes(data[:cut])
        for verb in (["index", str(path), "--out", str(tmp_path / "out")], ["build", str(path), str(tmp_path / "out")]):
            assert main(["shards", *verb, "--workers", "1"]) == 2
            said = capsys.readouterr().err
            assert f"{path}: truncated: it ends at byte {cut}" in said
            assert said.count("\n") == 1
    path.write_bytes(b"")
    assert main(["shards", "index", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "not a plain tar" in capsys.readouterr().err


def test_gnu_tar_with_odd_names(tmp_path: Path) -> None:
    """GNU tar's long names, names that climb out (only data here), upper case, several images, none, json labels."""
    folder = tmp_path / "in"
    long = "x" * 120
    for name, content in {
        f"deep/{long}.JPG": jpeg(),
        f"deep/{long}.json": b'{"label": "cat"}',
        "a.png": b"not an image",
        "a.cls": b"cat",
        "b.cls": b"dog",
        "c.seg.png": b"a mask",
        "c.webp": jpeg(10, 10),
        "c.json": b"[1, 2",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    names = [f"deep/{long}.JPG", f"deep/{long}.json", "a.png", "a.cls", "b.cls", "c.seg.png", "c.webp", "c.json"]
    tar = tmp_path / "odd.tar"
    subprocess.run(["tar", "--format=gnu", "-P", "--transform=s,^c,../c,", "-cf", tar, *names], cwd=folder, check=True)
    manifest = index({"train": [str(tar)]}, tmp_path / "out")
    found = read_back(manifest, "train", {str(tar): tar.read_bytes()})
    images = [(folder / f"deep/{long}.JPG").read_bytes(), (folder / "c.webp").read_bytes()]
    assert found == [(images[0], 0, ""), (images[1], -1, "")]
    assert manifest.classes == ("cat",)
    assert manifest.size is None
    assert not manifest.captions


def test_scan_counts_samples_without_image(tars: Tars) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.txt", "b.cls"):
            tar.addfile(tarfile.TarInfo(name))
    scan = TarScan(io.BytesIO(buffer.getvalue()), "x.tar")
    assert list(scan) == []
    assert [(entry.name, entry.reason) for entry in scan.left_out] == [
        ("a", "no image among its members"),
        ("b", "no image among its members"),
    ]
    assert scan.length == len(buffer.getvalue())


def test_class_names() -> None:
    assert class_names({"2", "0"}) == ("0", "1", "2")
    assert class_names({"dog", "cat", "7"}) == ("7", "cat", "dog")
    assert class_names(set()) == ()
    with pytest.raises(ValueError, match="no class"):
        class_names({"1700000000"})


def test_bad_arguments(tars: Tars, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "index", str(tmp_path / "no*.tar"), "--out", str(tmp_path / "out")]) == 2
    assert "no such tar" in capsys.readouterr().err
    assert main(["shards", "index", str(tars[0][0]), "--out", str(tars[0][0].parent)]) == 2
    assert "is not empty" in capsys.readouterr().err
