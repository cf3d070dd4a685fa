"""The driver of evaluations: every held-out picture on exactly one rank, whatever the number of ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules.paired import UnpairedData
from datamodules.shards import ShardData
from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from launch.evaluation.driver import check_enough, needs_data, own_pictures, prepare, score, steps_of_a_rank
from lightning_modules.metrics import specs
from lightning_modules.metrics.evaluator import EvaluationOptions, GenerationEvaluator, Pictures
from lightning_modules.metrics.sources import SourceEvaluator
from tests.pictures import photographs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ShardData:
    folder = tmp_path_factory.mktemp("held-out")
    (folder / "pictures").mkdir()
    pieces = to_uint8(photographs(160)).unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    for number, image in enumerate(pieces):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "pictures" / f"{number:03d}.png")
    command = ["shards", "build", str(folder / "pictures"), str(folder / "shards"), "--size", "32", "--format", "png"]
    assert main(command) == 0
    return ShardData(str(folder / "shards"), workers=0)


class Planned(GenerationEvaluator):
    """Measures generated images; only its numbers are asked for."""

    def __init__(self, metrics: tuple[str, ...], made: int, reference: int | None) -> None:
        options = EvaluationOptions(metrics, "mobilenet_v2", made, reference_samples=reference)
        super().__init__(lambda index, batch: torch.zeros(len(index), 3, 32, 32), options, "a family")


@pytest.mark.process
@pytest.mark.parametrize("name", ["fid", "kid", "prdc"])
def test_too_few_pictures_are_known_beforehand(name: str, data: ShardData) -> None:
    least = specs.find(name).least
    check_enough(Planned((name,), least, least), data, option="evaluation.metrics")
    few = f"{least - 1} made picture{'s' * (least > 2)}"
    said = rf"^evaluation\.metrics: {name} cannot be measured of {few}, {least} or more are needed: take more"
    with pytest.raises(ValueError, match=said):
        check_enough(Planned((name, "is"), least - 1, None), data, option="evaluation.metrics")
    few = few.replace("made", "reference")
    said = rf"{name} cannot be measured of {few} \(of pictures, split train\), {least} or more .* out$"
    with pytest.raises(ValueError, match=said):
        check_enough(Planned((name, "is"), 100, least - 1), data, option="evaluation.metrics")


class OfPictures(GenerationEvaluator):
    """Measures a split of a shard set."""

    def __init__(self, split: str) -> None:
        options = EvaluationOptions(("fid",), "mobilenet_v2", 4)
        super().__init__(lambda index, batch: (batch or {})["image"], options, "images", Pictures("image", split))


@pytest.mark.process
def test_the_pictures_measured_may_be_of_another_set(data: ShardData, tmp_path: Path) -> None:
    """A split of one set against another set that has no split of that name."""
    reference = ShardData(data.path, workers=0)
    splits = {"train": data.manifest.split("train")}
    reference.manifest = replace(data.manifest, splits=splits)
    assert "test" in data.manifest.splits
    check_enough(OfPictures("test"), reference, sources=data, option="--metrics")
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        check_enough(OfPictures("test"), reference, option="--metrics")
    with pytest.raises(ValueError, match=r"no split 'dev'; it has test, train, val"):
        check_enough(OfPictures("dev"), reference, sources=data, option="--metrics")


def test_what_compares_with_nothing_needs_no_data() -> None:
    free, comparing = Planned(("is",), 2, None), Planned(("is", "fid"), 2, None)
    assert (needs_data(free), needs_data(comparing)) == (False, True)
    check_enough(free, None, option="evaluation.metrics")
    with pytest.raises(ValueError, match="wants pictures 'image'"):
        check_enough(comparing, None, option="evaluation.metrics")


class Brighter(SourceEvaluator):
    """Translates by making 200 levels brighter."""

    def __init__(self) -> None:
        super().__init__(
            "translation",
            lambda images: images + 400 / 255,
            EvaluationOptions(("truth_psnr",), num_samples=50, batch_size=3),
            "a family",
            source=Pictures("image"),
            reference=Pictures("image_b"),
        )


def test_translations_are_compared_with_their_truth(tmp_path: Path) -> None:
    """Pictures of two sets with the same captions, in whatever order they lie."""
    for name, base in (("dark", 0), ("light", 200)):
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.new("L", (32, 32), base + 5 * number).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(f"picture {number}")
        command = ["shards", "build", str(tmp_path / name), str(tmp_path / f"{name}-shards"), "--splits", "100"]
        assert main([*command, "--format", "png", "--workers", "1"]) == 0
    paths = [str(tmp_path / f"{name}-shards") for name in ("dark", "light")]
    evaluator, device = Brighter(), torch.device("cpu")
    with pytest.raises(ValueError, match="no true translations are known"):
        prepare(evaluator, UnpairedData(*paths, workers=0), device)
    data = UnpairedData(*paths, workers=0, paired=True)
    prepare(evaluator, data, device)
    scores = score(evaluator, data, device)
    assert evaluator.num_samples == 8
    assert scores == {"truth_psnr": 100.0, "copied_psnr": pytest.approx(20 * math.log10(255 / 200), abs=1e-3)}


def of_rank(data: ShardData, count: int, rank: int, ranks: int, size: int) -> list[dict[int, torch.Tensor]]:
    """Batches of a rank: number -> picture."""
    batches = own_pictures(data, None, count, rank, ranks, size)
    return [dict(zip(numbers.tolist(), batch["image"], strict=True)) for numbers, batch in batches if batch]


def together(batches: list[dict[int, torch.Tensor]]) -> dict[int, torch.Tensor]:
    return {number: image for batch in batches for number, image in batch.items()}


@pytest.mark.process
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("rounds", [0.5, 1, 2.3])
def test_ranks_share_the_pictures(data: ShardData, rounds: float, size: int) -> None:
    samples = data.manifest.split(data.held_out_split).samples
    count = round(rounds * samples)
    whole = together(of_rank(data, count, 0, 1, size))
    assert list(whole) == list(range(count))
    assert all(torch.equal(whole[n], whole[n + samples]) for n in range(min(count - samples, samples // 2)))
    for ranks in (2, 3, 4):
        shares = [of_rank(data, count, rank, ranks, size) for rank in range(ranks)]
        assert sorted(number for share in shares for number in together(share)) == list(range(count))
        for share in shares:
            assert all(torch.equal(image, whole[number]) for number, image in together(share).items())
        lengths = [len(share) for share in shares]
        assert steps_of_a_rank(count, samples, ranks, size) == lengths[0]
        assert all(a >= b for a, b in pairwise(lengths))
