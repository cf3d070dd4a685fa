"""Intervals in images."""

from __future__ import annotations

import pytest

from launch.callbacks.clock import Clock, Every


def test_an_interval_comes_round_once_for_each_multiple() -> None:
    for batch in (1, 7, 64, 1500):
        every, due = Every(1.0), 0
        for before in range(0, 10_000 - batch, batch):
            due += every.due(before, before + batch)
        last = (10_000 - batch - 1) // batch * batch + batch
        assert due == (last // 1000 if batch <= 1000 else due)
        assert due > 0
    with pytest.raises(ValueError, match="more than 0"):
        Every(0)


def test_the_speed_is_known_before_it_is_logged() -> None:
    clock = Clock(1.0, 100.0)
    assert clock.speed(0) is None
    clock.seconds = 2.0
    assert clock.speed(64) == 32.0
    clock.images_per_second = 50.0
    assert clock.speed(64) == 50.0
