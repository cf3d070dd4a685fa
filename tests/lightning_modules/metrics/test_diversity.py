"""Diversity: closed forms of linear generators; what is real; when a collapse is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from launch.evaluation.driver import needs_data
from lightning_modules.metrics.diversity import CLOSE, PAIRS, Diversity, collapse
from lightning_modules.metrics.evaluator import EvaluationOptions
from tests.lightning_modules.gan.test_stylegan2 import small

STARTS, ENDS = (torch.randn(PAIRS + 50, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) / 9 for seed in (0, 1))


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean((1, 2, 3))


def walk(index: Tensor, times: Tensor) -> Tensor:
    return STARTS[index].lerp(ENDS[index], times.float().view(-1, 1, 1, 1))


def measured(index: list[Tensor]) -> dict[str, float]:
    metric = Diversity(walk, distance)
    for of_one in index:
        metric.update(of_one)
    return metric.compute()


def test_of_a_linear_generator() -> None:
    found = measured(list(torch.arange(PAIRS + 50).split(77)))
    expected = distance(STARTS[:PAIRS], ENDS[:PAIRS]).mean().item()
    assert found["diversity"] == pytest.approx(expected, rel=1e-5)
    assert found["diversity_close"] == pytest.approx(CLOSE**2 * expected, rel=1e-4)
    assert math.isnan(found["diversity_real"])
    assert measured([torch.arange(PAIRS)])["diversity"] == pytest.approx(found["diversity"], rel=1e-6)


def test_real_pictures_are_compared_within_their_class() -> None:
    metric = Diversity(walk, distance)
    images = torch.stack([torch.full((3, 4, 4), float(value)) for value in (0, 1, 0.5, 0.75)])
    metric.begin({"image": images, "label": torch.tensor([0, 1, 0, 1])})
    assert metric.real == pytest.approx((0.5**2 + 0.25**2) / 2)
    metric.begin({"image": images})
    assert metric.real == pytest.approx((1 + 0.25**2) / 2)


def test_a_collapse_is_told_with_what_helps() -> None:
    assert collapse({"diversity/vgg16": 0.2, "diversity_real/vgg16": 0.3}) is None
    assert collapse({"fid/inception-tf": 3.0}) is None
    assert collapse({"diversity/vgg16": 0.1, "diversity_real/vgg16": math.nan}) is None
    told = collapse({"diversity/vgg16": 0.1, "diversity_close/vgg16": 0.05, "diversity_real/vgg16": 0.3})
    assert told is not None
    assert "LPIPS between them is 0.100, between held-out pictures 0.300" in told
    assert "r1_gamma" in told
    assert "augmentation.transforms bgc" in told


def test_a_gan_is_measured_beside_held_out_pictures() -> None:
    evaluator = small().evaluator(EvaluationOptions(metrics=("diversity",)))
    assert evaluator is not None
    assert needs_data(evaluator)
    assert not evaluator.references
    assert list(evaluator.weights) == ["vgg16_lpips"]
    assert set(evaluator.names) == {f"{name}/vgg16" for name in ("diversity", "diversity_close", "diversity_real")}
