"""Asks that come together are answered together, each with its own answer."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from launch.serving.asks import Generate, Stylize
from launch.serving.batching import Batcher
from launch.serving.options import ServeOptions
from tests.launch.serving.models import Counting


def held_up(model: Counting, **options: int | bool | float) -> tuple[Batcher, list[tuple[int, float]]]:
    """A batcher whose model waits for its gate, and what its watch was told."""
    told: list[tuple[int, float]] = []
    model.gate.clear()
    options.setdefault("wait", 1e-3)
    return Batcher(model, ServeOptions(**options), lambda size, seconds: told.append((size, seconds))), told  # type: ignore[arg-type]


def test_batches_form_while_the_model_is_at_work_and_nothing_is_mixed_up() -> None:
    model = Counting(most=4)
    batcher, told = held_up(model)
    futures = [batcher.submit(Generate(seed)) for seed in range(11)]
    model.gate.set()
    answers = [future.result(10) for future in futures]
    assert [int(answer.picture[0, 0, 0]) for answer in answers] == list(range(11))
    assert batcher.close(10)
    # The first one may have been taken before the others came.
    assert sum(size for size, _ in told) == 11
    assert max(map(len, model.batches_seen)) == 4
    assert len(model.batches_seen) <= 4
    assert {answer.batch for answer in answers} >= {4}


def test_only_what_is_made_alike_shares_a_batch_and_the_oldest_goes_first() -> None:
    model = Counting(most=8)
    batcher, _ = held_up(model)
    first = batcher.submit(Generate(0))
    others = [batcher.submit(Generate(seed, sampling=(("steps", seed % 2),))) for seed in range(1, 9)]
    model.gate.set()
    for future in (first, *others):
        future.result(10)
    batcher.close(10)
    assert model.batches_seen == [[0], [1, 3, 5, 7], [2, 4, 6, 8]]
    content = np.zeros((2, 2, 3), np.uint8)
    assert Stylize(content).key != Stylize(content).key


def test_one_that_cannot_be_answered_costs_no_other() -> None:
    model = Counting(most=4)
    batcher, _ = held_up(model)
    futures = {seed: batcher.submit(Generate(seed)) for seed in (1, 12, 13, 14, 99)}
    model.gate.set()
    for seed in (1, 12, 14):
        assert futures[seed].result(10).picture[0, 0, 0] == seed
    with pytest.raises(ValueError, match="13 is none of mine"):
        futures[13].result(10)
    with pytest.raises(RuntimeError, match="a defect"):
        futures[99].result(10)
    assert batcher.submit(Generate(5)).result(10).picture[0, 0, 0] == 5


@pytest.mark.parametrize(
    ("fills", "asked", "length"), [(True, None, 4), (False, None, 1), (True, False, 1), (False, True, 4)]
)
def test_exact_batches_are_of_one_size(fills: bool, asked: bool | None, length: int) -> None:
    model = Counting(most=4, fills=fills)
    batcher = Batcher(model, ServeOptions(exact=asked, wait=1e-3), lambda size, seconds: None)
    answer = batcher.submit(Generate(7)).result(10)
    assert model.batches_seen == [[7] * length]
    assert answer.batch == 1


def test_the_owner_may_set_the_batch_but_not_of_a_model_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Counting(most=4)
    batcher = Batcher(model, ServeOptions(max_batch=16), lambda size, seconds: None)
    assert batcher.limit("generate") == 16
    monkeypatch.setattr(Counting, "batches", lambda self, verb: False)
    assert batcher.limit("generate") == 1


def test_closing_answers_what_waits_and_several_workers_share_it() -> None:
    model = Counting(most=1)
    batcher, _ = held_up(model, workers=3)
    futures = [batcher.submit(Generate(seed)) for seed in range(20, 40)]
    cancelled = futures[19].cancel()
    assert not batcher.close(0.01)
    model.gate.set()
    assert [int(future.result(10).picture[0, 0, 0]) for future in futures[:19]] == list(range(20, 39))
    assert batcher.close(10)
    assert cancelled
    assert [39] not in model.batches_seen
    assert not any(thread.name.startswith("counting") for thread in threading.enumerate() if thread in batcher._threads)
    with pytest.raises(RuntimeError, match="has stopped"):
        batcher.submit(Generate(1))
