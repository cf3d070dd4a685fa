"""Copies of training pictures are flagged; pictures of the same kind, and smooth ones near to many, are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules.shards import ShardData
from gesso.cli.main import main
from launch.checkpoints.export import export
from launch.evaluation.memorisation import COLUMNS, memorisation
from tests.launch.export.families import tiny


def means(images: Tensor) -> Tensor:
    """Features of a kind: means of 8 x 8 pixels."""
    return torch.nn.functional.avg_pool2d(images.float(), 8).flatten(1)


def pictures(data: ShardData, split: str, count: int) -> Tensor:
    return next(data.reference_batches(split, rank=0, world_size=1, batch_size=count, limit=count)).clone()


@pytest.fixture
def data(shards: Path) -> ShardData:
    return ShardData(str(shards), 8, workers=0)


def test_copies_are_flagged_and_shown(data: ShardData) -> None:
    torch.manual_seed(0)
    copies = pictures(data, "train", 60)
    noisy = (copies + torch.randint(-12, 12, copies.shape)).clamp(0, 255).to(torch.uint8)
    found = memorisation(noisy, data, means)
    assert found.flagged
    assert found.spaces["pixels"].near > 0.9
    assert found.training == data.manifest.split("train").samples
    # Each is shown above the picture that it was made of.
    shown, originals = found.sheet[:COLUMNS], found.sheet[COLUMNS:]
    assert (shown - originals).abs().max() <= 12 / 127.5 + 1e-6
    json.dumps(found.result())


def test_mirrored_copies_are_found_where_training_mirrors(shards: Path) -> None:
    plain, mirroring = (ShardData(str(shards), 8, workers=0, flip=flip) for flip in (False, True))
    copies = pictures(plain, "train", 60).flip(3)
    assert memorisation(copies, mirroring, means).spaces["pixels"].near == 1
    assert memorisation(copies, plain, means).spaces["pixels"].near < 0.5


def test_others_of_the_same_kind_are_not_flagged(data: ShardData) -> None:
    """Real pictures that are neither trained on nor held out for the comparison; and their averages."""
    real = pictures(data, "test", 80)
    assert not memorisation(real, data, means).flagged
    smooth = torch.stack([real.roll(n, 0).float() for n in range(8)]).mean(0).to(torch.uint8)
    found = memorisation(smooth, data, means)
    assert not found.flagged
    # They are nearer to training pictures than held-out ones all the same.
    assert found.spaces["pixels"].distance < found.spaces["pixels"].held_out_distance


@pytest.mark.slow
def test_the_command_says_it(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "gan.safetensors"
    export(tiny("DCGAN", channels=1), run, origin={"images_seen": 0, "weights": "raw"})
    argv = ["memorised", str(run), "--data", str(shards), "--num", "50", "--limit", "200"]
    assert main([*argv, "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["flagged"], found["samples"], found["training"]) == (False, 50, 200)
    assert "no sign of copies" in said.err
    assert (tmp_path / "sheet.png").is_file()
    assert main(["memorised", str(run), "--num", "5"]) == 2
    assert "--num must be 50 or more" in capsys.readouterr().err
