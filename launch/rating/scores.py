"""Statistics of people's scores: each method's mean, paired differences, and their 95 % intervals.

Ratings are not independent: a picture that is hard to stylise gets low scores from everyone, so that ten
people on one picture say far less than ten pictures. Every interval here is therefore a t-interval over *pictures*: the
scores of one picture are averaged first, and each picture counts once. Such an interval from the means of independent
groups keeps its 95 % when the groups' variances differ (pictures with few and with many raters), and from few groups
as well, where a bootstrap over pictures is too narrow: Ibragimov and Müller 2010, "t-Statistic Based Correlation and
Heterogeneity Robust Inference", Journal of Business & Economic Statistics 28(4), resting on Bakirov and Székely 2005.

The interval covers other pictures and the same raters, without the variation between people (Judd, Westfall and
Kenny 2012, "Treating stimuli as a random factor in social psychology", on what that would take).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy.special import stdtrit

from launch.rating.files import Key, Sheet

LEVEL = 0.95


@dataclass(frozen=True)
class Rating:
    """One person's score, in [1, 5], of one method on one picture."""

    rater: str
    method: str
    picture: str
    score: int


@dataclass(frozen=True)
class MethodScore:
    """A method's mean over pictures, with its 95 % interval; None: one picture has none."""

    method: str
    ratings: int
    raters: int
    pictures: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The mean difference in score between ``method`` and ``other``, by the same people on the same pictures."""

    method: str
    other: str
    raters: int
    pictures: int
    mean: float
    low: float | None
    high: float | None


def ratings(sheets: Iterable[Sheet], keys: Mapping[str, Key]) -> list[Rating]:
    """The scores with their methods. Of a rater who saved more than once, the latest score of each picture counts."""
    latest = {
        (sheet.page, sheet.rater, item): score
        for sheet in sorted(sheets, key=lambda sheet: sheet.saved)
        for item, score in sheet.scores.items()
    }
    made = {(page, name): item for page, key in keys.items() for name, item in key.items.items()}
    return [
        Rating(rater, made[page, name].method, made[page, name].picture, score)
        for (page, rater, name), score in latest.items()
    ]


def by_method(rated: Sequence[Rating]) -> list[MethodScore]:
    """Each method's mean of its pictures' mean scores, the best first."""
    found = []
    for method in sorted({rating.method for rating in rated}):
        own = [rating for rating in rated if rating.method == method]
        pictures = defaultdict(list)
        for rating in own:
            pictures[rating.picture].append(rating.score)
        raters = len({rating.rater for rating in own})
        mean, low, high = t_interval([fmean(scores) for scores in pictures.values()])
        found.append(MethodScore(method, len(own), raters, len(pictures), mean, low, high))
    return sorted(found, key=lambda score: -score.mean)


def differences(rated: Sequence[Rating], methods: Sequence[str]) -> list[Difference]:
    """The difference of each pair of methods rated on common pictures; intervals are not corrected for many pairs.

    The difference is taken within a person and a picture, so that neither a strict rater nor a hard picture counts
    for or against a method, even when a rater did not come to the end.
    """
    given = defaultdict(list)
    for rating in rated:
        given[rating.method, rating.rater, rating.picture].append(rating.score)
    cells: dict[str, dict[tuple[str, str], float]] = {method: {} for method in methods}
    for (method, rater, picture), scores in given.items():
        cells[method][rater, picture] = fmean(scores)
    found = []
    for method, other in combinations(methods, 2):
        common = sorted(cells[method].keys() & cells[other].keys())
        if not common:
            continue
        pictures = defaultdict(list)
        for rater, picture in common:
            pictures[picture].append(cells[method][rater, picture] - cells[other][rater, picture])
        mean, low, high = t_interval([fmean(values) for values in pictures.values()])
        found.append(Difference(method, other, len({rater for rater, _ in common}), len(pictures), mean, low, high))
    return found


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None, float | None]:
    """Mean and Student's t-interval of independent values; no interval for a single one."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, None, None
    half = float(stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half
