"""Copies of shards on a node's own disk: the right ones, whole, and the same images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from datamodules.manifest import Manifest
from datamodules.order import Order
from datamodules.shards import ShardData
from datamodules.streaming.staging import STAGED, nearest, shards_read, stage, staged_folder
from tests.benchmarks.bench_order import simulate


@pytest.mark.parametrize(("ranks", "stop"), [([0, 1], 64), ([2, 3], 320), ([1], 4000)])
def test_the_shards_are_those_that_the_stream_reads(shards: Path, ranks: list[int], stop: int) -> None:
    data = ShardData(str(shards), global_batch_size=16, window=8)
    manifest = data.manifest
    ends = np.cumsum([shard.samples for shard in manifest.split("train").shards])
    # Few segments, so that a node does not need all shards at once.
    order = Order([shard.samples for shard in manifest.split("train").shards], 0, segments=4, window=8)
    rows = {int(order.locate(np.array([t]))[0]) for t in range(16, stop) if t % 4 in ranks}
    read = sorted({int(np.searchsorted(ends, row, side="right")) for row in rows})
    assert shards_read(manifest, order, ranks, 4, 16, stop) == read


def test_more_ranks_than_segments_share_segments_and_keep_to_few_shards() -> None:
    sizes = [50] * 64
    order = Order(sizes, 3, segments=8, window=20)
    rank_counts = (4, 8, 32)
    for ranks, reading in zip(rank_counts, simulate(order, sizes, rank_counts, 2, lambda part: None), strict=True):
        nodes = [range(first, first + 2) for first in range(0, ranks, 2)]
        read = [
            {int(np.searchsorted(np.cumsum(sizes), s, side="right")) for s in samples(order, node, ranks)}
            for node in nodes
        ]
        assert reading.fetched.tolist() == [len(shards) for shards in read]
        # Each segment lies in 8 shards, or 9 where it begins inside of one.
        assert reading.fetched.max() <= max(8 // len(nodes), 2) * 9
        assert (reading.in_use <= reading.fetched).all()
        assert reading.in_use.max() <= max(8 // len(nodes), 2) * 3


def samples(order: Order, node: range, ranks: int) -> list[int]:
    """What a node's ranks read in the first epoch."""
    positions = np.arange(order.samples)
    return order.locate(positions[np.isin(positions % ranks, node)]).tolist()


def test_a_staged_set_trains_the_same(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list[np.ndarray]:
        data = ShardData(str(shards), global_batch_size=16, workers=0)
        return [batch["image"].numpy() for batch in islice(data.train_dataloader(), 4)]

    plain, manifest = batches(), Manifest.load(shards)
    folder = staged_folder(manifest, tmp_path)
    sizes: list[int] = []
    stage(manifest, folder, [0, 3], progress=sizes.append)
    assert sizes == [manifest.split("train").shards[number].bytes for number in (0, 3)]
    # Another job on the node adds to it.
    stage(manifest, folder, [3, 5])
    monkeypatch.setenv(STAGED, str(tmp_path))
    staged = nearest(manifest)
    local = [shard.url for shard in staged.split("train").shards if not shard.url.startswith("/")]
    assert staged.root == folder
    assert len(local) == len(list(folder.glob("*.tar"))) == 3
    for ours, theirs in zip(batches(), plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_torn_copy_is_made_again(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(shards)
    stage(manifest, tmp_path, [0])
    (copy,) = tmp_path.glob("*.tar")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:100])
    stage(manifest, tmp_path, [0])
    assert copy.read_bytes() == whole


def test_another_set_is_not_taken_for_it(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.load(shards)
    monkeypatch.setenv(STAGED, str(tmp_path))
    assert nearest(manifest) is manifest
    folder = staged_folder(manifest, tmp_path)
    stage(manifest, folder, [0])
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(manifest.split("train").shards[1].sha256, "0" * 64))
    assert nearest(manifest) is manifest
