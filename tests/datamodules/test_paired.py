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


def build(folder: Path, name: str, count: int, base: int, captions: list[str] | None = None) -> str:
    """A shard set of ``count`` uniform grey pictures, ``base`` levels and up; with captions all in one split."""
    (folder / name).mkdir()
    for number in range(count):
        Image.new("L", (32, 32), base + number).save(folder / name / f"{number:03d}.png")
        if captions:
            (folder / name / f"{number:03d}.txt").write_text(captions[number])
    out = folder / f"{name}-shards"
    arguments = ["--size", "32", "--format", "png", "--workers", "1", *(["--splits", "100"] if captions else [])]
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


# ---- known translations ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Pictures 0 to 19 and, of the same captions, 219 to 200."""
    folder, captions = tmp_path_factory.mktemp("pairs"), [f"number {number}" for number in range(20)]
    return build(folder, "low", 20, 0, captions), build(folder, "high", 20, 200, captions[::-1])


def test_held_out_pictures_are_paired_by_their_captions(pairs: tuple[str, str]) -> None:
    data = unpaired(pairs, paired=True)
    for key, expected in (("image", [216, 202]), ("image_b", [3, 17])):
        found = data.true_pictures(key)(["number 3", "number 17"])
        assert found.dtype == torch.uint8
        assert found.shape == (2, 1, 32, 32)
        assert found[:, 0, 5, 5].tolist() == expected
    batch = data.held_out_batch(7)
    a, b = (batch[key][:, 0, 0, 0].int() for key in ("image", "image_b"))
    assert (a + b).tolist() == [219] * 7
    assert batch["paired"]
    # Training knows nothing of it.
    assert levels(data, 3) == levels(unpaired(pairs), 3)


def test_what_is_no_truth_is_said(pairs: tuple[str, str], domains: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no true translations are known.*--data\.paired true"):
        unpaired(pairs).true_pictures("image")
    with pytest.raises(ValueError, match="has no captions, by which"):
        unpaired(domains, paired=True).true_pictures("image")
    # Before a training begins, not at its first preview.
    with pytest.raises(ValueError, match="has no captions, by which"):
        unpaired(domains, paired=True).check_held_out()
    unpaired(domains).check_held_out()
    unpaired(pairs, paired=True).check_held_out()
    fewer = build(tmp_path, "fewer", 19, 200, [f"number {number}" for number in range(19)])
    with pytest.raises(ValueError, match=r"low-shards: 1 held-out picture without .* in .*fewer-shards, .*'number 19'"):
        unpaired((pairs[0], fewer), paired=True).true_pictures("image")
    twice = build(tmp_path, "twice", 3, 200, ["one", "two", "one"])
    with pytest.raises(ValueError, match="two pictures of its split train have the caption 'one'"):
        unpaired((pairs[0], twice), paired=True).true_pictures("image")


@pytest.mark.parametrize("grey_first", [True, False])
def test_domains_of_grey_and_of_colour_need_a_word(domains: tuple[str, str], tmp_path: Path, grey_first: bool) -> None:
    colours = tmp_path / "colours"
    colours.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (number, 2 * number, 200)).save(colours / f"{number}.png")
    assert main(["shards", "build", str(colours), str(tmp_path / "shards"), "--size", "32", "--workers", "1"]) == 0
    both = (domains[0], str(tmp_path / "shards"))
    ordered = both if grey_first else both[::-1]
    with pytest.raises(ValueError, match=r"data\.path holds (grey|RGB) .* --data\.channels 3"):
        unpaired(ordered).check_held_out()
    unpaired(ordered, channels=3).check_held_out()


def test_one_image_is_no_domain(domains: tuple[str, str], tmp_path: Path) -> None:
    single = build(tmp_path, "single", 1, 0, captions=["all that there is"])
    with pytest.raises(ValueError, match=r"data\.path_b: .*one image"):
        unpaired((domains[0], single)).check_held_out()
