from __future__ import annotations

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from lightning_modules.metrics.inception_score import InceptionScore


def score(logits: torch.Tensor, *, splits: int, batches: int = 1) -> tuple[float, float]:
    metric = InceptionScore(logits.shape[1], num_samples=len(logits), splits=splits)
    for index in torch.randperm(len(logits)).chunk(batches):
        metric.update(logits[index], index)
    return metric.compute()


@pytest.mark.parametrize("splits", [1, 10])
def test_equals_torch_fidelity_in_any_order(splits: int) -> None:
    logits = 2 * torch.randn(200, 30)
    expected = isc_features_to_metric(logits, splits=splits, shuffle=False)
    mean, std = score(logits, splits=splits, batches=7)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-12)


def test_closed_forms() -> None:
    assert score(torch.zeros(40, 12), splits=4) == pytest.approx((1, 0))  # every image looks like every class
    one_sure_class_each = 1e3 * torch.eye(12).repeat(8, 1)
    assert score(one_sure_class_each, splits=8) == pytest.approx((12, 0))
    assert score(one_sure_class_each[:1].repeat(40, 1), splits=4) == pytest.approx((1, 0))  # collapsed to one class


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_samples() -> None:
    with pytest.raises(ValueError, match="none"):
        InceptionScore(10, num_samples=100).compute()
