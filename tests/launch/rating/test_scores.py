"""The figures of a rating against scipy's, and an interval that holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from launch.rating.scores import Rating, by_method, differences, t_interval


def crossed(pictures: int, raters: int, seed: int) -> np.ndarray:
    """Scores [method, rater, picture] by strict and kind raters on easy and hard pictures."""
    rng = np.random.default_rng(seed)
    method, rater, picture = np.array([3.4, 2.9, 3.0]), rng.normal(0, 0.5, raters), rng.normal(0, 0.8, pictures)
    level = method[:, None, None] + rater[:, None] + picture
    return np.clip(np.rint(level + rng.normal(0, 0.6, level.shape)), 1, 5).astype(int)


def rated(scores: np.ndarray) -> list[Rating]:
    return [Rating(f"r{r}", f"m{m}", f"p{p}", int(score)) for (m, r, p), score in np.ndenumerate(scores)]


@pytest.mark.parametrize(("pictures", "raters"), [(4, 1), (9, 5), (40, 3)])
def test_intervals_agree_with_scipy(pictures: int, raters: int) -> None:
    scores = crossed(pictures, raters, seed=pictures)
    means = scores.mean(1)
    found = {score.method: score for score in by_method(rated(scores))}
    for method in range(3):
        expected = stats.ttest_1samp(means[method], 0).confidence_interval(0.95)
        score = found[f"m{method}"]
        assert (score.ratings, score.raters, score.pictures) == (pictures * raters, raters, pictures)
        assert score.mean == pytest.approx(scores[method].mean())
        assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    pairs = differences(rated(scores), ["m0", "m1", "m2"])
    assert [(pair.method, pair.other) for pair in pairs] == [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]
    for pair in pairs:
        one, other = int(pair.method[1]), int(pair.other[1])
        expected = stats.ttest_rel(means[one], means[other]).confidence_interval(0.95)
        assert pair.mean == pytest.approx((means[one] - means[other]).mean())
        assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))


def test_the_best_comes_first_and_one_picture_has_no_interval() -> None:
    scores = by_method([Rating("r", "worse", "p", 2), Rating("r", "better", "p", 4), Rating("s", "better", "p", 5)])
    assert [(score.method, score.mean, score.low, score.high) for score in scores] == [
        ("better", 4.5, None, None),
        ("worse", 2, None, None),
    ]
    assert t_interval([3.0]) == (3.0, None, None)


def test_who_did_not_finish_counts_only_where_they_compared() -> None:
    kind = [Rating("kind", method, picture, 5) for method, picture in (("a", "p"), ("a", "q"), ("a", "r"), ("b", "p"))]
    strict = [Rating("strict", "a", "p", 3), Rating("strict", "b", "p", 1), Rating("strict", "b", "q", 1)]
    strict += [Rating("strict", "b", "r", 1), Rating("strict", "a", "r", 3)]
    (pair,) = differences(kind + strict, ["a", "b"])
    # p: 0 by one and 2 by the other; r: 2 by the one who rated both; q: nobody did.
    expected = stats.ttest_1samp([1, 2], 0).confidence_interval()
    assert (pair.raters, pair.pictures, pair.mean) == (2, 2, 1.5)
    assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))
    assert differences(kind[:1] + strict[2:3], ["a", "b"]) == []


@pytest.mark.slow
def test_the_interval_holds_what_it_promises_where_one_over_ratings_does_not() -> None:
    rng = np.random.default_rng(1)
    held = naive = 0
    for _ in range(400):
        # Twelve pictures, each good for 2, 3 or 4, and eight raters who are off by one or not: the true mean is 3.
        scores = rng.integers(2, 5, (1, 1, 12)) + rng.integers(-1, 2, (1, 8, 12))
        (score,) = by_method(rated(scores))
        assert score.low is not None
        assert score.high is not None
        held += score.low <= 3 <= score.high
        over_ratings = stats.ttest_1samp(scores.ravel(), 3)
        naive += over_ratings.pvalue >= 0.05
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.75
