"""Data sets by name: all of their pictures, in their official splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from tests.datamodules.building.made import pixels, samples

pytestmark = [pytest.mark.network, pytest.mark.process]


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


@pytest.mark.slow
def test_emoji_are_paired_where_they_are_held_out_and_nowhere_else(tmp_path: Path) -> None:
    """By their names, and by their pixels: no held-out picture is among those of training."""
    names: dict[str, dict[str, set[str]]] = {}
    for vendor in ("google", "twitter"):
        manifest = build(f"emoji-{vendor}", tmp_path / vendor, workers=2, progress=False)
        assert (manifest.size, manifest.channels, len(manifest.classes)) == ((64, 64), 3, 10)
        found = {split: samples(tmp_path / vendor, split) for split in ("train", "test")}
        names[vendor] = {split: {sample["txt"].decode() for sample in rows} for split, rows in found.items()}
        assert {split: len(rows) for split, rows in found.items()} == {
            split: len(given) for split, given in names[vendor].items()
        }
        drawn = {split: {pixels(sample["png"]).tobytes() for sample in rows} for split, rows in found.items()}
        assert not drawn["train"] & drawn["test"]
        # On white.
        assert pixels(found["test"][0]["png"])[0, 0].min() > 250
    google, twitter = names["google"], names["twitter"]
    assert google["test"] == twitter["test"]
    assert len(google["test"]) == 173
    assert not google["train"] & twitter["train"]
    assert not (google["train"] | twitter["train"]) & google["test"]
