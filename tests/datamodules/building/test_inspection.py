"""What inspect counts, and that verify finds every kind of damage."""

from __future__ import annotations

import errno
import io
import json
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.building.build import build
from datamodules.building.inspection import inspect, verify
from datamodules.building.options import BuildOptions
from datamodules.manifest import Manifest
from datamodules.shards import ShardData
from gesso.cli.main import main
from gesso.common.files import writing_whole

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three classes of one colour each, 8, 7 and 6 images of different levels."""
    for count, (name, colour) in zip((8, 7, 6), COLOURS.items(), strict=True):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(count):
            level = tuple(channel * (60 + number) // 67 for channel in colour)
            Image.new("RGB", (40, 40), level).save(tmp_path / "in" / name / f"{number}.png")
    options = BuildOptions(splits="100", samples_per_shard=11, format="png")
    build(tmp_path / "in", tmp_path / "out", options, workers=1, progress=False)
    return tmp_path / "out"


def test_inspect_counts(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect(shards)
    assert found.classes == {"train": {"blue": 6, "green": 7, "red": 8}}
    assert (found.splits["train"]["samples"], found.splits["train"]["shards"]) == (21, 2)
    assert found.splits["train"]["bytes"] == sum(tar.stat().st_size for tar in shards.glob("*.tar"))
    assert main(["shards", "inspect", str(shards)]) == 0
    said = capsys.readouterr().out
    assert "40 x 40, colour" in said
    assert str(found.sheet) in said


def test_contact_sheet_shows_each_class_in_its_row(shards: Path) -> None:
    """Rows in the order of the classes: blue, green, red; as many pictures in each as there are images."""
    sheet = np.asarray(Image.open(inspect(shards).sheet)).astype(int)
    rows = np.array_split(sheet[:, 130:], 3)  # right of the names
    for row, channel, count in zip(rows, (2, 1, 0), (6, 7, 8), strict=True):
        others = [other for other in range(3) if other != channel]
        coloured = (row[:, :, channel] > 150) & (row[:, :, others].max(2) < 10)
        assert coloured.sum() == pytest.approx(count * 80 * 80, rel=0.02)  # 40 pixels, doubled
    assert (sheet[:, :120] < 100).any()  # the names


def test_the_sheet_of_a_set_that_is_only_read_is_written_here(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(file: Path) -> AbstractContextManager[Path]:
        if file.parent == shards or not file.parent.samefile(tmp_path / "here"):
            raise PermissionError(errno.EROFS, f"{file}: cannot be written (read-only)")
        return writing_whole(file)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("datamodules.building.inspection.writing_whole", read_only)
    sheet = inspect(shards).sheet
    assert sheet == Path("in-contact_sheet.png")
    assert Image.open(sheet).size[0] > 1000
    assert not (shards / "contact_sheet.png").exists()
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(OSError, match=r"in-contact_sheet\.png: cannot be written"):
        inspect(shards)


def test_a_good_set_verifies(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(shards, workers=1) == []
    assert main(["shards", "verify", str(shards), "--workers", "2"]) == 0
    assert "good" in capsys.readouterr().out


def damage(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_verify_finds_damage(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = shards / "train-00001.tar"
    whole = tar.read_bytes()
    row = Manifest.load(shards).index("train")[11 + 3]
    cut = int(row["offset"]) + 40

    tar.write_bytes(whole[:cut])
    assert main(["shards", "verify", str(shards), "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert f"{tar}: truncated: it ends at byte {cut}" in said
    assert f"should have {len(whole)} bytes" in said

    tar.write_bytes(whole)
    damage(tar, int(row["offset"]) + 45, bytes(20))
    problems = verify(shards, workers=1, progress=False)
    assert any(f"{tar}: sample" in problem and f"byte {row['offset']}" in problem for problem in problems)
    assert any("sha256" in problem for problem in problems)

    tar.write_bytes(whole)
    damage(tar, len(whole) - 100, b"x")  # in the padding: all images are good, the end is not
    [problem] = verify(shards, workers=1, progress=False)
    assert f"{tar}: damaged at byte" in problem

    tar.unlink()
    [problem] = verify(shards, workers=1, progress=False)
    assert f"{tar}: cannot be read" in problem


def change_manifest(folder: Path, *, counts: list[int] | None = None, **changes: object) -> None:
    """Edits a manifest by hand; ``counts``: those of the first split's classes; None: none, as in an older manifest."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_text()), **changes}
    for split in manifest["splits"].values():
        split.pop("class_counts", None)
    if counts is not None:
        next(iter(manifest["splits"].values()))["class_counts"] = counts
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("classes", ["red"], "15 labels are none of the 1 classes, the first is 1 of sample"),
        ("size", [64, 64], "40 x 40 pixels; the manifest says (64, 64)"),
        ("channels", 1, "in colour; the manifest says that all are grey"),
    ],
)
def test_verify_compares_what_the_manifest_says(shards: Path, key: str, value: object, problem: str) -> None:
    change_manifest(shards, **{key: value})
    assert problem in verify(shards, workers=1, progress=False)[0]


def test_labels_of_no_class_are_not_trained_on(shards: Path) -> None:
    change_manifest(shards, classes=["red", "green"])
    with pytest.raises(ValueError, match=r"labels \d to 2 in its index, and 2 classes; run `gesso shards verify"):
        list(ShardData(str(shards)).split_batches("train", rank=0, world_size=1, batch_size=21, limit=None))


def test_verify_counts_the_classes(shards: Path) -> None:
    counts = Manifest.load(shards).split("train").class_counts
    labels = np.load(shards / "train.index.npy")["label"]
    assert counts == tuple(int((labels == label).sum()) for label in range(3))
    assert inspect(shards).classes["train"] == dict(zip(Manifest.load(shards).classes, counts, strict=True))
    change_manifest(shards, counts=[counts[0] - 1, *counts[1:]])
    assert "other numbers of samples by class" in verify(shards, workers=1, progress=False)[0]


def test_verify_finds_an_index_that_does_not_fit(shards: Path) -> None:
    file = shards / "train.index.npy"
    rows = np.load(file)
    rows["offset"][2] += 512
    np.save(file, rows)
    [problem] = verify(shards, workers=1, progress=False)
    assert str(file) in problem
    assert "checksum" in problem
    file.unlink()
    [problem] = verify(shards, workers=1, progress=False)
    assert f"{file}: missing" in problem


def test_an_undecodable_sample_is_red_on_the_sheet(shards: Path) -> None:
    row = Manifest.load(shards).index("train")[0]
    before = np.asarray(Image.open(inspect(shards).sheet))
    damage(shards / "train-00000.tar", int(row["offset"]), bytes(16))
    after = np.asarray(Image.open(inspect(shards).sheet))
    changed = (before != after).any(2)
    assert (after[changed] == (255, 0, 0)).all()
    assert changed.any()


def test_no_shard_set_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("inspect", "verify"):
        assert main(["shards", verb, str(tmp_path)]) == 2
        assert "gesso shards build" in capsys.readouterr().err
    buffer = io.BytesIO(b"{}")
    (tmp_path / "manifest.json").write_bytes(buffer.getvalue())
    assert main(["shards", "verify", str(tmp_path)]) == 2
    assert "not a shard-set manifest" in capsys.readouterr().err
