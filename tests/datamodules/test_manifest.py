"""Manifests of strangers, and edited by hand: a line with the file and what is wrong in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from datamodules.manifest import Manifest

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


def shard(**fields: object) -> dict[str, Any]:
    split = GOOD["splits"]["train"]
    return {"splits": {"train": {**split, "shards": [{**split["shards"][0], **fields}]}}}


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
        ({"splits": {"train": {**GOOD["splits"]["train"], "shards": []}}}, "split 'train' has no samples"),
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
