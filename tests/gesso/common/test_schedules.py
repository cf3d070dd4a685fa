"""Numbers that change over a training: their closed forms, and torch's own scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from gesso.common.schedules import Schedule, at, largest


def test_courses_are_their_closed_forms() -> None:
    places = [0, 10_000, 15_000, 20_000, 30_000, 99_000]
    linear = Schedule(1.0, 3.0, over_kimg=30.0, hold_kimg=10.0, course="linear")
    assert [linear.at(seen) for seen in places] == pytest.approx([1, 1, 1.5, 2, 3, 3])
    cosine = Schedule(0.05, 0.005, hold_kimg=10.0)
    shares = [1.0, 1.0, *((1 + math.cos(math.pi * gone)) / 2 for gone in (0.25, 0.5)), 0.0, 0.0]
    found = [cosine.at(seen, total_kimg=30.0) for seen in places]
    assert found == pytest.approx([0.005 + 0.045 * share for share in shares])
    assert (found[0], found[-1]) == (0.05, 0.005)


def test_a_cosine_is_torchs() -> None:
    schedule, optimizer = Schedule(0.1, 0.01, over_kimg=5.0), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01)
    for step in range(51):
        assert schedule.at(100 * step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_a_number_may_have_none() -> None:
    assert (at(2.0, 500), largest(2.0)) == (2.0, 2.0)
    assert (at(Schedule(1, 3, over_kimg=1.0), 500), largest(Schedule(1, 3))) == (2.0, 3)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="needs over_kimg, since nothing says how long"):
        Schedule(0, 1).at(0)
    with pytest.raises(ValueError, match=r"over_kimg is 1.0; it must be more than hold_kimg \(2\)"):
        Schedule(0, 1, over_kimg=1.0, hold_kimg=2.0)
    with pytest.raises(ValueError, match="end is nan; it must be a finite number"):
        Schedule(0, math.nan)
