"""Two streams without pairs: independent orders, one integer of state, and sets that are recognised on resume."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from datamodules.paired import UnpairedData
from gesso.cli.main import main


def build(folder: Path, name: str, count: int, base: int) -> str:
    """A shard set of ``count`` uniform grey pictures, ``base`` levels and up."""
    (folder / name).mkdir()
    for number in range(count):
        Image.new("L", (32, 32), base + number).save(folder / name / f"{number:03d}.png")
    out = folder / f"{name}-shards"
    arguments = ["--size", "32", "--format", "png", "--workers", "1"]
    assert main(["shards", "build", str(folder / name), str(out), *arguments]) == 0
    return str(out)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("domains")
    return build(folder, "dark", 60, 0), build(folder, "light", 60, 150)


def levels(data: UnpairedData, count: int) -> list[tuple[list[int], list[int]]]:
    """Grey levels of both domains in the next batches of training."""
    batches = [data.on_after_batch_transfer(batch, 0) for batch in islice(data.train_dataloader(), count)]
    return [(grey(batch["image"]), grey(batch["image_b"])) for batch in batches]


def grey(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].add(1).mul(127.5).round().int().tolist()


def unpaired(domains: tuple[str, str], **options: Any) -> UnpairedData:
    return UnpairedData(*domains, global_batch_size=8, workers=0, **options)


def test_orders_are_independent_and_resume_by_one_integer(domains: tuple[str, str]) -> None:
    whole = levels(unpaired(domains), 6)
    assert all(max(a) < 100 for a, _ in whole)
    assert all(min(b) >= 150 for _, b in whole)
    # Sets of one size, in one order, would differ by 150 everywhere.
    assert any([level + 150 for level in a] != b for a, b in whole)
    data = unpaired(domains)
    data.consumed(3 * 8)
    state = data.state_dict()
    again = unpaired(domains)
    again.load_state_dict(state)
    assert again.position == 24
    assert levels(again, 3) == whole[3:]


def test_another_set_is_refused(domains: tuple[str, str]) -> None:
    data = unpaired(domains)
    data.consumed(8)
    with pytest.raises(ValueError, match=r"--data\.path_b"):
        unpaired((domains[0], domains[0])).load_state_dict(data.state_dict())


def test_held_out_pictures_of_both(domains: tuple[str, str]) -> None:
    data = unpaired(domains)
    batch = data.held_out_batch(3)
    assert batch["image"].shape == batch["image_b"].shape == (3, 1, 32, 32)
    assert int(batch["image"].max()) < 100 < 150 <= int(batch["image_b"].min())
    assert data.path_options() == {"path": "image", "path_b": "image_b"}
    assert list(data.streams()) == ["image", "image_b"]
