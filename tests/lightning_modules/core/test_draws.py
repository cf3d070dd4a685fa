"""Draws that are made ahead, against those that are made one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gesso.common.randomness import mix_seed
from lightning_modules.core.draws import NoiseAhead, NoiseRows, Steps
from tests.operators import CountCalls

CPU = torch.device("cpu")
SHAPES: list[tuple[int, ...]] = [(), (7,), (3, 9, 5), (1, 64, 64)]


def drawn(rows: NoiseRows) -> Iterator[Tensor]:
    for shape in SHAPES:
        yield rows.normal(6, shape, CPU)
        yield rows.uniform(6, shape, CPU)


def seed_at(images_seen: int) -> int:
    return mix_seed(5, images_seen)


@pytest.mark.parametrize("ranks", [1, 4])
def test_draws_made_ahead_are_those_made_one_by_one(ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The largest draw is too large for some steps, and another stays alone.
    monkeypatch.setattr(NoiseAhead, "NUMBERS", 5 * 6 * 64 * 64)
    monkeypatch.setattr(NoiseAhead, "STEPS", 7)
    ahead = NoiseAhead()
    for step in [*range(40), 3, 4, 5, 60, 62, 64, 64, 65]:
        images_seen = step * 6 * ranks
        for update in range(2):
            for part in range(2):
                at = {"update": update, "part": part, "parts": 2, "rank": ranks - 1, "ranks": ranks}
                kept = drawn(NoiseRows(Steps(seed_at, images_seen, 6 * ranks), **at, ahead=ahead))
                for mine, alone in zip(kept, drawn(NoiseRows(seed_at(images_seen), **at)), strict=True):
                    assert torch.equal(mine, alone)
                    # A family may work in place.
                    mine.zero_()


def test_a_changing_batch_is_drawn_one_by_one() -> None:
    ahead, images_seen = NoiseAhead(), 0
    for images in (8, 8, 8, 4, 8, 12, 12, 12):
        rows = NoiseRows(Steps(seed_at, images_seen, images), 0, 0, 1, ahead=ahead)
        alone = NoiseRows(seed_at(images_seen), 0, 0, 1)
        assert torch.equal(rows.normal(images, (5,), CPU), alone.normal(images, (5,), CPU))
        images_seen += images


def test_most_steps_call_no_operator() -> None:
    ahead, calls = NoiseAhead(), []
    for step in range(2 + 2 * NoiseAhead.STEPS):
        with CountCalls() as mode:
            NoiseRows(Steps(seed_at, 4 * step, 4), 0, 0, 1, ahead=ahead).normal(4, (128,), CPU)
        calls.append(mode.calls.total())
    assert sum(number > 0 for number in calls) == 4
    assert sum(calls[1 : 1 + NoiseAhead.STEPS]) / NoiseAhead.STEPS < 2.5
