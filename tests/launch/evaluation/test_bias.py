"""Planted shares are found again; what is drawn as the data is, is called alike; FID and recall against the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from datamodules.shards import ShardData
from gesso.cli.main import main
from launch.checkpoints.export import export
from launch.evaluation import bias
from launch.evaluation.pictures import labelled_pictures
from lightning_modules.metrics.frechet import frechet_distance
from lightning_modules.networks.classifier import Classifier
from lightning_modules.pictures.scores import brightness
from tests.launch.export.families import tiny


@pytest.fixture
def data(shards: Path) -> ShardData:
    return ShardData(str(shards), 8, workers=0)


def of_groups(*counts: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def test_shares_and_intervals_are_scipys() -> None:
    first, second, third = bias.groups(["a", "b", "c"], of_groups(100, 60, 40), of_groups(150, 10, 40))
    assert (first.verdict, second.verdict, third.verdict) == ("more", "less", "alike")
    assert (first.data.share, first.samples.share) == (0.5, 0.75)
    wanted = binomtest(150, 200).proportion_ci(method="wilson")
    assert (first.samples.low, first.samples.high) == pytest.approx((wanted.low, wanted.high))
    # Each of three groups at 1 - 0.05 / 3: Newcombe's formula out of scipy's intervals.
    (low1, _), (_, high2) = (binomtest(n, 200).proportion_ci(1 - 0.05 / 3, "wilson") for n in (150, 100))
    assert first.low == pytest.approx(0.25 - np.hypot(0.75 - low1, high2 - 0.5))


def test_by_chance_hardly_any_group_is_called_another_share() -> None:
    """Of 60 draws from one distribution, about 5 % or fewer call any of 10 groups unlike."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.arange(1.0, 11)
    names = [str(number) for number in range(10)]
    wrong = 0
    for _ in range(60):
        data, samples = (torch.multinomial(weights, 500, True, generator=generator) for _ in range(2))
        wrong += any(group.verdict != "alike" for group in bias.groups(names, data, samples))
    assert wrong <= 8


def test_scores_are_cut_into_fifths() -> None:
    levels = torch.arange(0, 250, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    found = bias.score_groups(brightness, levels, levels, levels[100:])
    assert [group.data.share for group in found] == [0.2] * 5
    assert [round(group.samples.share, 6) for group in found] == [
        0,
        0,
        round(1 / 3, 6),
        round(1 / 3, 6),
        round(1 / 3, 6),
    ]
    assert [group.verdict for group in found] == ["less", "less", "more", "more", "more"]
    assert found[0].name.startswith("below 0.19")


def test_a_score_of_two_values_has_two_groups() -> None:
    levels = torch.tensor([0] * 70 + [255] * 30, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    off, on = bias.score_groups(brightness, levels, levels, levels[:70])
    assert (off.data.share, on.data.share) == (0.7, 0.3)
    assert (off.samples.share, on.samples.share) == (1, 0)
    with pytest.raises(ValueError, match="nothing to compare"):
        bias.score_groups(brightness, levels[:70], levels, levels)
    with pytest.raises(ValueError, match="no numbers"):
        bias.score_groups(lambda images: images.mean((1, 2, 3)) / 0, levels, levels, levels)


@pytest.fixture(scope="module")
def classifier(shards: Path) -> Classifier:
    pictures, labels = labelled_pictures(ShardData(str(shards), 8, workers=0), "train", 1000)
    return bias.class_of(pictures, labels, 10, kimg=6, seed=0, width=16)


@pytest.mark.slow
def test_planted_shares_are_found_through_the_classifier(data: ShardData, classifier: Classifier) -> None:
    """Half of the samples are ones, the rest as the data; they are real pictures that it has not seen."""
    pictures, labels = labelled_pictures(data, "test", 1000)
    held_out, own = labelled_pictures(data, "val", 1000)
    guessed = bias.told(classifier, held_out)
    assert (guessed == own).float().mean() > 0.9
    ones = pictures[labels == 1]
    samples = torch.cat([pictures, ones[torch.arange(100) % len(ones)]])
    found = bias.groups(data.manifest.classes, guessed, bias.told(classifier, samples))
    assert found[1].verdict == "more"
    true = (float((labels == 1).sum()) + 100) / len(samples)
    assert found[1].samples.low < true < found[1].samples.high
    assert sum(group.samples.share for group in found) == pytest.approx(1)
    same = bias.groups(data.manifest.classes, guessed, bias.told(classifier, pictures))
    assert {group.verdict for group in same} == {"alike"}


@pytest.mark.slow
def test_each_class_is_measured_by_itself(
    data: ShardData, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family that gives real test pictures of the class, but zeros for every two."""
    monkeypatch.setattr(bias, "LEAST", 5)
    module = tiny("DCGAN", channels=1).eval()
    pictures, labels = labelled_pictures(data, "test", 1000)

    def generate(index: Tensor, *, seed: int, labels: Tensor) -> Tensor:
        shown = [0 if int(label) == 2 else int(label) for label in labels]
        return torch.stack([own[label][int(i) % len(own[label])] for i, label in zip(index, shown, strict=True)])

    own = [pictures[labels == label].float() / 127.5 - 1 for label in range(10)]
    monkeypatch.setattr(module, "generate", generate)

    def features(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images.float() / 255, 8).flatten(1)

    found = bias.of_classes(module, data, "test", classifier, features, num=8, seed=0)
    assert [each.name for each in found] == list(data.manifest.classes)
    # 109 pictures of 10 classes: some have too few.
    assert {each.fid is None for each in found} == {each.pictures < 5 for each in found}
    (two, first) = (found[2], next(each for each in found if each.fid is not None and each.name != "2"))
    assert two.told is not None
    assert first.told is not None
    assert two.told.share < 0.3
    assert first.told.share > 0.7
    label = int(first.name)
    # The Fréchet distance by its plain formula, on the same pictures.
    real = features(bias.of_class(data, "train", label, first.pictures)).double()
    fake = features(pictures[labels == label][: first.pictures]).double()
    wanted = frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert first.fid == pytest.approx(float(wanted), rel=1e-4, abs=1e-6)
    held_out = features(bias.of_class(data, "test", label, first.pictures)).double()
    wanted = frechet_distance(real.mean(0), real.T.cov(), held_out.mean(0), held_out.T.cov())
    assert first.held_out_fid == pytest.approx(float(wanted), rel=1e-4, abs=1e-6)


def failed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["bias", *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_mistakes_are_told_in_a_line(
    digits: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "gan.safetensors"
    export(tiny("DCGAN", channels=1), run, origin={"images_seen": 0, "weights": "raw"})
    assert "--num must be 50 or more" in failed([str(run), "--num", "5"], capsys)
    assert "--per-class must be 0 or more" in failed([str(run), "--per-class", "-1"], capsys)
    assert "--kimg must be" in failed([str(run), "--kimg", "0"], capsys)
    assert "no scorer 'beauty'" in failed([str(run), "--scorer", "beauty"], capsys)
    bare = tmp_path / "bare"
    assert main(["shards", "build", str(digits), str(bare), "--size", "32", "--no-classes", "--splits", "80/20"]) == 0
    assert "no labels to compare shares of" in failed([str(run), "--data", str(bare)], capsys)
    style = tmp_path / "style.safetensors"
    export(tiny("FastStyle"), style, origin={"images_seen": 0, "weights": "raw"})
    assert "FastStyle" in failed([str(style), "--data", str(shards)], capsys)


@pytest.mark.slow
def test_the_command_says_it(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "gan.safetensors"
    export(tiny("DCGAN", channels=1, num_classes=10), run, origin={"images_seen": 0, "weights": "raw"})
    argv = ["--data", str(shards), "--num", "60", "--kimg", "0.2", "--per-class", "0", "--scorer", "brightness"]
    assert main(["bias", str(run), *argv]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert len(found["classes"]) == 10
    assert "per_class" not in found
    # An untrained generator's pictures are all grey.
    assert found["brightness"][-1]["verdict"] == "more"
    assert found["brightness"][-1]["samples"]["share"] == 1
    assert "brightness" in said.err
