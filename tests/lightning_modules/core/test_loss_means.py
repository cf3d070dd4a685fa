"""Means of losses over an interruption are those of a training without one."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from torch import Tensor

from lightning_modules.core.loss_means import LossMeans


def alone(tensor: Tensor) -> Tensor:
    return tensor


def test_a_mean_is_of_the_steps_before_and_after_an_interruption() -> None:
    values = torch.rand(10, generator=torch.Generator().manual_seed(0))
    whole, first = LossMeans(), LossMeans()
    for number, value in enumerate(values):
        whole.add({"loss": value, **({"r1": value * 2} if number % 4 == 0 else {})})
    for number, value in enumerate(values[:7]):
        first.add({"loss": value, **({"r1": value * 2} if number % 4 == 0 else {})})
    second = LossMeans()
    second.load(json.loads(json.dumps(first.saved(alone))), rank=0, ranks=1)
    for number, value in enumerate(values[7:], 7):
        second.add({"loss": value, **({"r1": value * 2} if number % 4 == 0 else {})})
    taken = whole.take(alone)
    assert second.take(alone) == taken, "bit for bit"
    assert taken["loss"] == pytest.approx(statistics.fmean(values.tolist()), rel=1e-6)
    assert whole.take(alone) == {}
    assert whole.saved(alone) == {}


def test_the_mean_over_ranks_stays_on_another_number_of_them() -> None:
    ranks = [LossMeans(), LossMeans()]
    for rank, means in enumerate(ranks):
        means.add({"a": torch.tensor(1.0 + rank), "b": torch.tensor(5.0 * rank)})
    both = torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    saved = ranks[0].saved(lambda own: both)
    assert saved == {"a": {"count": 1, "sums": [1.0, 2.0]}, "b": {"count": 1, "sums": [0.0, 5.0]}}
    again = [LossMeans(), LossMeans()]
    for rank, means in enumerate(again):
        means.load(saved, rank=rank, ranks=2)
    assert [means.take(alone) for means in again] == [{"a": 1.0, "b": 0.0}, {"a": 2.0, "b": 5.0}]
    single = LossMeans()
    single.load(saved, rank=0, ranks=1)
    assert single.take(alone) == {"a": 1.5, "b": 2.5}
