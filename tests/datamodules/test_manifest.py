"""Manifests of strangers, and edited by hand: a line with the file and what is wrong in it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.manifest import INDEX_DTYPE, Manifest, Shard, Split, default_segments, write_index
from datamodules.shards import ShardData
from datamodules.streaming.reader import ShardReader
from tests.datamodules.shardset import large_set
from tests.memory import resident

GOOD: dict[str, Any] = {
    "format": 1,
    "name": "set",
    "channels": 3,
    "size": [32, 32],
    "classes": ["a", "b"],
    "captions": False,
    "segments": 64,
    "splits": {
        "train": {
            "shards": [{"url": "a.tar", "samples": 3, "bytes": 10240, "sha256": "00"}],
            "index": "train.index.npy",
            "index_sha256": "00",
        }
    },
}


SPLIT = GOOD["splits"]["train"]


def shard(**fields: object) -> dict[str, Any]:
    return {"splits": {"train": {**SPLIT, "shards": [{**SPLIT["shards"][0], **fields}]}}}


def counts(value: object) -> dict[str, Any]:
    return {"splits": {"train": {**SPLIT, "class_counts": value}}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"channels": 2}, "channels is 2, and 1 or 3 can be"),
        ({"size": "32"}, "size is '32', and is none or two whole numbers"),
        ({"size": [32]}, "size is [32], and is none or two whole numbers"),
        ({"segments": 0}, "segments is 0, and is a whole number of 1 or more"),
        ({"classes": "ab"}, "classes is no list of texts"),
        ({"splits": [1]}, "splits maps no names to shards"),
        ({"splits": {}}, "splits maps no names to shards"),
        (shard(samples="3"), "split 'train' has a shard of '3' samples"),
        (shard(samples=3.0), "split 'train' has a shard of 3.0 samples"),
        (shard(samples=float("nan")), "split 'train' has a shard of nan samples"),
        (shard(samples=-5), "split 'train' has a shard of -5 samples"),
        (shard(samples=0), "split 'train' has no samples"),
        ({"splits": {"train": {**SPLIT, "shards": []}}}, "split 'train' has no samples"),
        (counts([1]), "split 'train' has class_counts that are not 2 whole numbers, one a class"),
        (counts([1, -1]), "split 'train' has class_counts that are not 2 whole numbers, one a class"),
        (counts("12"), "split 'train' has class_counts that are not 2 whole numbers, one a class"),
        (counts([2, 2]), "split 'train' has more samples in its class_counts than in its shards"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(GOOD))
    assert Manifest.load(tmp_path).split("train").samples == 3
    file.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ValueError, match=re.escape(f"{file}: {problem}; build or index the set again")):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"format": 1, "name": "a", "name": "b"}', "[" * 100_000, "[1]", '"text"', "{}", "\x00", ""]
)
def test_what_is_no_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json: not a shard-set manifest \("):
        Manifest.load(tmp_path)


def rows(*labels: int) -> np.ndarray:
    found = np.zeros(len(labels), INDEX_DTYPE)
    found["label"] = labels
    return found


def test_class_counts_are_written_with_the_index(tmp_path: Path) -> None:
    shards = [Shard("a.tar", 5, 10240, "00")]
    split = write_index(tmp_path, "train", shards, rows(0, 2, -1, 2, -1), classes=3)
    Manifest(tmp_path, "set", 3, None, ("a", "b", "c"), False, {"train": split}, 64).save()
    os.remove(tmp_path / "train.index.npy")
    manifest = Manifest.load(tmp_path)
    assert manifest.class_counts("train") == (1, 0, 2)
    assert manifest.unlabelled("train") == ShardData(str(tmp_path)).unlabelled == 2


def test_an_older_manifest_has_its_classes_counted_when_asked(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    manifest = Manifest.load(tmp_path)
    with pytest.raises(ValueError, match="unreadable index"):
        manifest.class_counts("train")
    np.save(tmp_path / "train.index.npy", rows(1, -1, 1))
    assert manifest.class_counts("train") == (0, 2)
    assert manifest.unlabelled("train") == 1


@pytest.mark.parametrize("url", ["../a.tar", "a/../../b.tar", "..", "./../a.tar"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, **shard(url=url)}))
    with pytest.raises(ValueError, match=re.escape(f"{url!r} leaves the shard set's folder; refused")):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("url", ["PIPE:rm x", "ftp://a/b.tar", "pi\tpe:rm x", "file2:/a"])
def test_a_scheme_that_nobody_reads_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, **shard(url=url)}))
    with pytest.raises(ValueError, match="cannot read"):
        Manifest.load(tmp_path)


def test_names_inside_the_folder_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.load(".")
    found = {
        url: manifest.resolve(url) for url in ("a.tar", "./b/../a.tar", "/data/a.tar", "http://x/a.tar", "..a.tar")
    }
    here = str(tmp_path.resolve())
    assert found == {
        "a.tar": f"{here}/a.tar",
        "./b/../a.tar": f"{here}/a.tar",
        "/data/a.tar": "/data/a.tar",
        "http://x/a.tar": "http://x/a.tar",
        "..a.tar": f"{here}/..a.tar",
    }


def test_a_hundred_million_images_are_opened_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large_set(tmp_path, shards=10_000, samples_per_shard=10_000)
    asked: list[object] = []
    for name in ("stat", "lstat", "readlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, **o: (asked.append(a), real(*a, **o))[1])
    memory, start = resident("VmRSS"), time.process_time()
    data = ShardData(str(tmp_path), global_batch_size=256, workers=0)
    assert len(data.manifest.split("train").shards) == 10_000
    assert (data.unlabelled, data.manifest.segments) == (1_000_000, 1024)
    data.train_dataloader()
    assert len(ShardReader(data.manifest, "train").index) == data.state_dict()["samples"] == 100_000_000
    assert time.process_time() - start < 1
    assert resident("VmRSS") - memory < 200e6
    assert len(asked) < 100  # of the file system: not one question for each shard


@pytest.mark.parametrize(
    ("shards", "segments"),
    [(1, 64), (64, 64), (1023, 64), (1024, 128), (4000, 256), (10_000, 1024), (10**6, 4096)],
)
def test_segments_follow_the_number_of_shards(shards: int, segments: int) -> None:
    train = Split((Shard("a.tar", 1, 1, "00"),) * shards, "train.index.npy", "00")
    val = Split((Shard("b.tar", 1, 1, "00"),), "val.index.npy", "00")
    assert default_segments({"val": val, "train": train}) == segments
