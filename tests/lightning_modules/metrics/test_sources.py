"""Translations against what they are to become, and a plain copy against the same."""

from __future__ import annotations

import math

import pytest
import torch

from gesso.common.pixels import to_float
from lightning_modules.metrics.evaluator import EvaluationOptions, Pictures
from lightning_modules.metrics.sources import SourceEvaluator


def evaluator(*metrics: str) -> SourceEvaluator:
    """Translates by making 30 levels brighter."""
    return SourceEvaluator(
        "translation",
        lambda images: images + 30 * 2 / 255,
        EvaluationOptions(metrics, num_samples=4),
        "a family",
        source=Pictures("image"),
        reference=Pictures("image_b"),
    )


def test_both_are_compared_with_the_truth() -> None:
    found = evaluator("truth_psnr", "truth_ssim")
    assert found.truth
    assert not found.references
    assert found.names == {"truth_psnr": "max", "copied_psnr": None, "truth_ssim": "max", "copied_ssim": None}
    found.load({}, torch.device("cpu"))
    images = torch.randint(0, 180, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        found.reset()
        found.begin({}, 4)
        for rows in torch.arange(4).split(3):
            found.update(rows, {"image": to_float(images[rows]), "truth": to_float(images[rows] + 40)})
        scores = found.compute()
    assert scores["truth_psnr"] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert scores["copied_psnr"] == pytest.approx(20 * math.log10(255 / 40), abs=1e-3)
    assert scores["copied_ssim"] < scores["truth_ssim"] < 1


def test_without_such_metrics_no_truth_is_asked_for() -> None:
    assert not evaluator("ssim").truth
    assert evaluator("truth_lpips").weights == ["vgg16_lpips"]
