"""Intervals of shares, against published figures."""

from __future__ import annotations

import pytest

from launch.evaluation.shares import Share, newcombe, wilson


def test_intervals_are_wilsons() -> None:
    low, high = wilson(1, 10)
    assert (low, high) == (pytest.approx(0.01787, abs=1e-4), pytest.approx(0.40415, abs=1e-4))
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == pytest.approx(1)


def test_differences_are_newcombes() -> None:
    """The examples of Newcombe 1998 (Statistics in Medicine 17, table II), method 10."""
    for first, second, wanted in [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ]:
        assert newcombe(first, second) == pytest.approx(wanted, abs=1e-4)


def test_a_share_knows_its_interval() -> None:
    assert Share.of(1, 10) == Share(0.1, *wilson(1, 10))
    assert wilson(5, 50, 0.99)[0] < wilson(5, 50)[0]
