"""The stream: the same global batches for any number of ranks and workers, and exact resumption."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datamodules.manifest import Manifest
from datamodules.order import BalancedOrder, Order, SequentialOrder
from datamodules.streaming.stream import ShardStream, StreamBatch
from datamodules.streaming.transforms import Augment
from datamodules.streaming.workers import WorkerKind
from tests.datamodules.shardset import Sample, in_shards, numbered, write_shards

pytestmark = pytest.mark.process

SEED = 11
TOTAL = 67  # samples of numbered_set's train split
AUGMENT = Augment(4, "random_resized", flip=True, color_jitter=0.3)
WORKERS = pytest.mark.parametrize(
    "workers", [{"workers": 0}, *({"workers": 3, "worker_kind": kind} for kind in get_args(WorkerKind))], ids=str
)


def stream(manifest: Manifest, batch_size: int, **options: Any) -> ShardStream:
    split = options.pop("split", "train")
    sizes = [shard.samples for shard in manifest.split(split).shards]
    options = {"order": Order(sizes, SEED, manifest.segments, 8), "augment": AUGMENT, "channels": 3, **options}
    return ShardStream(manifest, split, batch_size=batch_size, seed=SEED, **options)


def batches(manifest: Manifest, batch_size: int, number: int, **options: Any) -> list[StreamBatch]:
    return list(islice(stream(manifest, batch_size, **options), number))


def interleave(of_ranks: list[list[StreamBatch]]) -> list[dict[str, Any]]:
    """Global batches out of each rank's part: rank r has every W-th row from row r on."""
    merged = []
    for parts in zip(*of_ranks, strict=True):
        assert len({part["position"] for part in parts}) == 1
        merged.append(
            {
                "position": parts[0]["position"],
                **{
                    key: torch.stack([part[key] for part in parts], 1).flatten(0, 1)  # type: ignore[literal-required]
                    for key in ("image", "label", "index")
                },
                "caption": [
                    caption for row in zip(*(part["caption"] for part in parts), strict=True) for caption in row
                ],
            }
        )
    return merged


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            same = torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key]
            assert same, f"{key} differs at position {a['position']}"


@pytest.mark.process
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.sampled_from([4, 8, 12, 32]),
    worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=4),
    workers=st.lists(st.sampled_from([0, 1, 3]), min_size=4, max_size=4),
    kinds=st.lists(st.sampled_from(get_args(WorkerKind)), min_size=4, max_size=4),
    stops=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_global_batches_and_resumption(
    numbered_set: Manifest,
    size: int,
    worlds: list[int],
    workers: list[int],
    kinds: list[WorkerKind],
    stops: list[int],
) -> None:
    """Stops at random places and resumes with other numbers of ranks and workers, over two epochs and more."""
    total = -(-2 * TOTAL // size) + 1  # so that one batch straddles the epochs' boundary
    whole = interleave([batches(numbered_set, size, total)])
    pieces: list[dict[str, Any]] = []
    position = 0
    for part, world in enumerate(worlds):
        number = total - len(pieces) if part == len(worlds) - 1 else min(stops[part], total - len(pieces) - 1)
        if number < 1:
            continue
        streams = [
            stream(
                numbered_set,
                size,
                rank=rank,
                world_size=world,
                start=position,
                workers=workers[part],
                worker_kind=kinds[part],
            )
            for rank in range(world)
        ]
        pieces += interleave([list(islice(own, number)) for own in streams])
        assert {own.state_dict()["position"] for own in streams} == {pieces[-1]["position"]}
        position = streams[-1].state_dict()["position"]
    assert_same(pieces, whole)
    index = torch.cat([batch["index"] for batch in pieces])
    for epoch in range(2):
        assert sorted(index[epoch * TOTAL : (epoch + 1) * TOTAL].tolist()) == list(range(TOTAL))


def test_rows_hold_what_their_index_says(numbered_set: Manifest, number_of: Callable[[Any], list[int]]) -> None:
    for batch in batches(numbered_set, 8, 20, augment=Augment(4)):
        assert number_of(batch["image"]) == batch["index"].tolist()
        assert batch["label"].tolist() == [number % 3 for number in batch["index"].tolist()]
        assert batch["caption"] == [f"number {number}" for number in batch["index"].tolist()]
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape == (8, 4, 4, 3)


@pytest.mark.process
@pytest.mark.parametrize("world", [1, 2, 4])
@WORKERS
def test_finite_stream_sees_each_sample_once(
    numbered_set: Manifest, world: int, workers: dict[str, Any], number_of: Callable[[Any], list[int]]
) -> None:
    options = {"order": SequentialOrder(10), "augment": Augment(4), "split": "val", "stop": 10, "world_size": world}
    parts = [batches(numbered_set, 4, 100, rank=rank, **options, **workers) for rank in range(world)]
    for rank, part in enumerate(parts):
        assert [number - 1000 for batch in part for number in number_of(batch["image"])] == list(range(rank, 10, world))
        assert all(len(batch["image"]) for batch in part)


@pytest.mark.process
@WORKERS
def test_state_counts_what_was_received_not_what_was_prepared(numbered_set: Manifest, workers: dict[str, Any]) -> None:
    source = stream(numbered_set, 8, **workers)
    received = iter(source)
    for number in range(1, 4):
        next(received)
        assert source.state_dict() == {"position": 8 * number}
    other = stream(numbered_set, 8)
    other.load_state_dict(source.state_dict())
    assert torch.equal(next(iter(other))["index"], next(received)["index"])


@pytest.mark.process
@WORKERS
def test_a_finite_stream_is_a_whole_pass_each_time(numbered_set: Manifest, workers: dict[str, Any]) -> None:
    source = stream(numbered_set, 4, split="val", order=SequentialOrder(10), stop=10, **workers)
    next(iter(source))
    for _ in range(2):
        assert [index for batch in source for index in batch["index"].tolist()] == list(range(10))


@pytest.mark.process
def test_processes_of_a_data_loader_are_refused(numbered_set: Manifest) -> None:
    with pytest.raises(RuntimeError, match="give the stream workers instead"):
        next(iter(DataLoader(stream(numbered_set, 8), batch_size=None, num_workers=1)))


def test_balanced_stream(numbered_set: Manifest) -> None:
    labels = np.arange(TOTAL) // 60  # 60 of one class, 7 of the other
    order = BalancedOrder(labels, SEED)
    index = torch.cat([batch["index"] for batch in batches(numbered_set, 8, 30, order=order)])
    assert np.bincount(labels[index.numpy()]).tolist() == [120, 120]


@pytest.fixture
def broken_set(tmp_path: Path) -> Manifest:
    """40 numbered images, of which numbers 5, 6 and 20 are cut short or no image at all."""
    samples = [Sample(numbered(n, size=16), 0) for n in range(40)]
    for number, data in ((5, samples[5].data[:60]), (6, b"no image"), (20, samples[20].data[:-40])):
        samples[number] = replace(samples[number], data=data)
    return write_shards(tmp_path, train=in_shards(samples, 25, 15))


@pytest.mark.process
@WORKERS
def test_a_broken_image_is_named_and_replaced(
    broken_set: Manifest, workers: dict[str, Any], number_of: Callable[[Any], list[int]]
) -> None:
    source = stream(broken_set, 8, augment=Augment(16), **workers)
    with pytest.warns(RuntimeWarning, match="left out") as caught:
        received = list(islice(source, 15))  # three epochs
    assert len(caught) == 3
    assert sorted(source.skipped) == [5, 6, 20]
    assert any("train-000000.tar, byte" in str(w.message) and "undecodable" in str(w.message) for w in caught)
    visits = Order([25, 15], SEED, 4, 8).locate(np.arange(200))
    expected = [next(s for s in visits[position:].tolist() if s not in (5, 6, 20)) for position in range(120)]
    assert torch.cat([batch["index"] for batch in received]).tolist() == expected
    assert [number for batch in received for number in number_of(batch["image"])] == expected


@pytest.mark.filterwarnings("ignore:left out")
def test_a_broken_image_is_replaced_alike_on_any_number_of_ranks(broken_set: Manifest) -> None:
    whole = torch.cat([batch["index"] for batch in batches(broken_set, 8, 10)])
    parts = [
        torch.cat([batch["index"] for batch in batches(broken_set, 8, 10, rank=r, world_size=4)]) for r in range(4)
    ]
    assert torch.equal(torch.stack(parts, 1).flatten(), whole)


@pytest.mark.filterwarnings("ignore:left out")
def test_a_finite_stream_leaves_broken_images_out(broken_set: Manifest) -> None:
    received = batches(broken_set, 8, 100, order=SequentialOrder(40), stop=40)
    assert torch.cat([batch["index"] for batch in received]).tolist() == [n for n in range(40) if n not in (5, 6, 20)]


@pytest.mark.filterwarnings("ignore:left out")
def test_nothing_but_broken_images(tmp_path: Path) -> None:
    good = Sample(numbered(0), 0)
    manifest = write_shards(tmp_path, val=[[good]], train=[[replace(good, data=b"nothing")] * 5])
    with pytest.raises(ValueError, match=r"100 samples in a row cannot be decoded.*gesso shards verify") as caught:
        batches(manifest, 2, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.process
@WORKERS
def test_a_truncated_shard_is_an_error_that_names_shard_and_end(tmp_path: Path, workers: dict[str, Any]) -> None:
    manifest = write_shards(tmp_path, train=[[Sample(numbered(n)) for n in range(20)] for _ in range(2)])
    shard = tmp_path / "train-000001.tar"
    cut = int(manifest.index("train")["offset"][30])
    with shard.open("r+b") as file:
        file.truncate(cut + 10)
    whole = manifest.split("train").shards[1].bytes
    said = rf"train-000001\.tar: truncated: it ends at byte {cut + 10}, and the manifest says {whole}; copy"
    with pytest.raises(ValueError, match=said) as caught:
        batches(manifest, 8, 5, **workers)
    assert "\n" not in str(caught.value)


def test_a_batch_that_ranks_cannot_share(numbered_set: Manifest) -> None:
    with pytest.raises(ValueError, match=r"10 images cannot be dealt to 4 ranks.*global_batch_size"):
        stream(numbered_set, 10, world_size=4)


@pytest.mark.slow
def test_memory_stays_flat_over_an_epoch(tmp_path: Path) -> None:
    """Reads 120 MB of shards in a process of its own; its resident memory must not grow by a tenth of that."""
    rng = np.random.default_rng(0)
    noise = [Sample(_noise(rng)) for _ in range(150)]
    write_shards(tmp_path, train=[noise] * 8)
    script = f"""
        import psutil
        from datamodules.shards import ShardData
        data = ShardData({str(tmp_path)!r}, global_batch_size=20, workers=2)
        sizes = []
        for batch in data.train_dataloader():
            sizes.append(psutil.Process().memory_info().rss)
            if batch["position"] >= 2400: break
        print(sizes[20], max(sizes))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    start, most = map(int, done.stdout.split())
    assert most - start < 12e6


def _noise(rng: np.random.Generator) -> bytes:
    import cv2

    return cv2.imencode(".png", rng.integers(0, 256, (180, 180, 3), dtype=np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be a whole number from 0 to 1"),
        ({"rank": -1}, "rank is -1"),
        ({"world_size": 0}, "world_size is 0; it must be a whole number 1 or more"),
        ({"workers": -1}, "workers is -1; it must be a whole number 0 or more"),
        ({"start": -1}, "start is -1"),
    ],
)
def test_options_that_would_give_other_batches_are_refused(
    numbered_set: Manifest, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        stream(numbered_set, 8, **options)


@pytest.mark.parametrize("state", [{"position": -5}, {"position": 2.5}, {"position": "8"}, {}, None])
def test_what_is_no_state_of_a_stream_is_refused(numbered_set: Manifest, state: Any) -> None:
    source = stream(numbered_set, 8)
    with pytest.raises(ValueError, match=r"position is .*; it must be a whole number 0 or more|no state of a stream"):
        source.load_state_dict(state)
    source.load_state_dict({"position": np.int64(16)})  # type: ignore[dict-item]
    assert next(iter(source))["position"] == 24
