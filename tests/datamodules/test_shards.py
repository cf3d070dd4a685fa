"""The data module, alone and under Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.manifest import Manifest
from datamodules.shards import ShardData
from datamodules.streaming.floats import to_float_images
from tests.datamodules.shardset import Sample, in_shards, numbered, write_shards

pytestmark = pytest.mark.process

TOTAL = 67


def data(manifest: Manifest, **options: Any) -> ShardData:
    return ShardData(str(manifest.root), **{"global_batch_size": 8, "window": 8, **options})


class Listener(L.LightningModule):
    """Trains one number, and remembers which samples it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        assert batch["image"].dtype == torch.float32
        self.seen += batch["index"].tolist()
        return self.weight.square().sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trainer.datamodule.consumed(batch["position"])  # type: ignore[attr-defined]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        **options,
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("thread", 2), ("process", 2)])
def test_a_resumed_training_sees_the_rest(numbered_set: Manifest, tmp_path: Path, kind: str, workers: int) -> None:
    """Two trainings with a checkpoint between them against one without: Lightning prefetches, and it must not show."""
    options = {"worker_kind": kind, "workers": workers}
    whole = Listener()
    trainer(tmp_path, max_steps=20, limit_val_batches=0).fit(whole, data(numbered_set))
    first, second = Listener(), Listener()
    run = trainer(tmp_path, max_steps=7, limit_val_batches=0)
    run.fit(first, data(numbered_set, **options))
    run.save_checkpoint(tmp_path / "last.ckpt")
    resumed = trainer(tmp_path, max_steps=20, limit_val_batches=0)
    resumed.fit(second, data(numbered_set, **options), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert len(first.seen) == 7 * 8
    assert first.seen + second.seen == whole.seen
    assert sorted(whole.seen[:TOTAL]) == list(range(TOTAL))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_each_validation_sees_the_whole_split(numbered_set: Manifest, tmp_path: Path) -> None:
    module = Listener()
    trainer(tmp_path, max_steps=6, val_check_interval=2).fit(module, data(numbered_set))
    assert module.validated == 3 * list(range(10))


def test_without_held_out_splits_validation_has_no_batch(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, train=[[Sample(numbered(n)) for n in range(9)]])
    assert list(data(manifest).val_dataloader()) == []
    with pytest.raises(ValueError, match=r"no split 'test'; it has train"):
        data(manifest).test_dataloader()


def test_test_split_stands_in_for_val(tmp_path: Path) -> None:
    manifest = write_shards(
        tmp_path, train=[[Sample(numbered(0))]], test=[[Sample(numbered(100 + n)) for n in range(3)]]
    )
    for loader in (data(manifest).val_dataloader(), data(manifest).test_dataloader()):
        assert [int(image[0, 0, 1]) for batch in loader for image in batch["image"]] == [100, 101, 102]


def ranked(manifest: Manifest, rank: int, world_size: int, **options: Any) -> DataLoader:
    module = data(manifest, **options)
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
    return module.train_dataloader()


def test_ranks_share_the_batches_of_one(numbered_set: Manifest) -> None:
    alone = [batch["index"] for batch in islice(ranked(numbered_set, 0, 1), 20)]
    of_ranks = [[batch["index"] for batch in islice(ranked(numbered_set, rank, 4), 20)] for rank in range(4)]
    for number, whole in enumerate(alone):
        assert torch.equal(torch.stack([of_ranks[rank][number] for rank in range(4)], 1).flatten(), whole)
    with pytest.raises(ValueError, match="8 images cannot be dealt to 3 ranks"):
        ranked(numbered_set, 0, 3)


def test_seed_shuffles_and_augments(numbered_set: Manifest) -> None:
    def first(seed: int) -> Any:
        return next(iter(data(numbered_set, seed=seed, crop="random_resized", color_jitter=0.5).train_dataloader()))

    assert torch.equal(first(1)["image"], first(1)["image"])
    assert not torch.equal(first(1)["index"], first(2)["index"])


def test_balanced(tmp_path: Path) -> None:
    samples = [Sample(numbered(n), int(n > 25)) for n in range(30)]
    manifest = write_shards(tmp_path, train=in_shards(samples, 14, 16))
    labels = [batch["label"] for batch in islice(data(manifest, balanced=True).train_dataloader(), 10)]
    assert torch.bincount(torch.cat(labels)).tolist() == [40, 40]


def test_what_the_data_is_is_known_without_a_trainer(numbered_set: Manifest) -> None:
    module = data(numbered_set)
    assert (module.channels, module.num_classes, module.size) == (3, 3, 4)
    other = data(numbered_set, size=9, channels=1)
    assert (other.channels, other.size) == (1, 9)
    assert next(iter(other.train_dataloader()))["image"].shape == (8, 9, 9, 1)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, train=[[Sample(numbered(0, 4)), Sample(numbered(1, 6))]])
    for size, message in ((None, "of several sizes"), ((4, 6), "6 x 4 pixels")):
        object.__setattr__(manifest, "size", size)
        manifest.save()
        with pytest.raises(ValueError, match=rf"{message}: set --data.size"):
            _ = data(manifest).size


def test_state_goes_with_one_data_set_and_one_order(numbered_set: Manifest, tmp_path: Path) -> None:
    module = data(numbered_set)
    module.consumed(40)
    state = module.state_dict()
    torch.save(state, tmp_path / "state")
    resumed = data(numbered_set, global_batch_size=16)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    visits = [batch["index"] for batch in islice(data(numbered_set).train_dataloader(), 7)]
    assert torch.equal(next(iter(resumed.train_dataloader()))["index"], torch.cat(visits[5:7]))
    other = write_shards(tmp_path / "other", train=[[Sample(numbered(n)) for n in range(5)]])
    with pytest.raises(ValueError, match="not the data set that the checkpoint was trained on") as caught:
        data(other).load_state_dict(state)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"another order \(seed was 0, is 5\)"):
        data(numbered_set, seed=5).load_state_dict(state)
    with pytest.raises(ValueError, match=r"in 64 segments, and this set has 4: write \"segments\": 64 into .*manifest"):
        data(numbered_set).load_state_dict({**state, "segments": 64})
    # Checkpoints of before do not tell.
    data(numbered_set).load_state_dict({key: value for key, value in state.items() if key != "segments"})


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("limit", "expected"), [(None, 67), (20, 20), (1000, 67)])
def test_reference_batches(
    numbered_set: Manifest,
    number_of: Callable[[Any], list[int]],
    world_size: int,
    limit: int | None,
    expected: int,
) -> None:
    found: list[int] = []
    for rank in range(world_size):
        module = data(numbered_set, flip=True, crop="random_resized", color_jitter=1.0)
        for batch in module.reference_batches("train", rank=rank, world_size=world_size, batch_size=6, limit=limit):
            assert batch.dtype == torch.uint8
            assert batch.shape[1:] == (3, 4, 4)
            assert len(batch) <= 6
            found += number_of(batch.permute(0, 2, 3, 1))
    # Evenly spaced over all 67: the shards of a foreign set may hold one class after the other.
    assert sorted(found) == [number * 67 // expected for number in range(expected)]


@pytest.mark.parametrize("channels", [1, 3])
def test_to_float(channels: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 8, channels), dtype=np.uint8))
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    floats = to_float_images(images)
    torch.testing.assert_close(floats.double(), images.permute(0, 3, 1, 2).double() / 127.5 - 1, rtol=0, atol=2e-7)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert floats.min() == -1
    assert floats.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 2}, "channels 2"), ({"workers": -1}, "workers"), ({"window": 0}, "window")],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardData("anywhere", **options)


def test_no_shard_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shard set here.*gesso shards build"):
        _ = ShardData(str(tmp_path)).channels
