"""Shares with their intervals, and the difference of two."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Share:
    """A share of some pictures, with its 95 % interval (Wilson 1927).

    Args:
        share: in [0, 1].
        low, high: the interval's ends.
    """

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, trials: int) -> Share:
        """So many of so many; trials are 1 or more."""
        return cls(successes / trials, *wilson(successes, trials))


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Wilson 1927) at a confidence level.

    >>> tuple(round(end, 4) for end in wilson(1, 10))
    (0.0179, 0.4042)
    """
    interval = binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe(first: tuple[int, int], second: tuple[int, int], level: float = 0.95) -> tuple[float, float]:
    """The interval of the difference of two shares, out of Wilson's of each (Newcombe 1998, method 10).

    Args:
        first, second: successes and trials of each.
        level: the confidence level.

    >>> tuple(round(end, 4) for end in newcombe((56, 70), (48, 80)))
    (0.0524, 0.3339)
    """
    (low1, high1), (low2, high2) = wilson(*first, level), wilson(*second, level)
    share1, share2 = first[0] / first[1], second[0] / second[1]
    difference = share1 - share2
    below = ((share1 - low1) ** 2 + (high2 - share2) ** 2) ** 0.5
    above = ((high1 - share1) ** 2 + (share2 - low2) ** 2) ** 0.5
    return difference - below, difference + above
