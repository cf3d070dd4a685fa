"""The order of samples: what it promises, held against definitions and known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from datamodules.order import MAX_DRAWS, BalancedOrder, Order, SequentialOrder, uniforms
from gesso.common.randomness import permutation

shard_sets = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@settings(max_examples=60, deadline=None)
@given(shard_sets, st.integers(-(2**40), 2**40), st.integers(1, 9), st.integers(1, 50), st.integers(0, 10**9))
def test_every_epoch_visits_every_sample_once(
    sizes: list[int], seed: int, segments: int, window: int, epoch: int
) -> None:
    order = Order(sizes, seed, segments, window)
    total = sum(sizes)
    first = epoch * total
    visited = order.locate(np.arange(first, first + 2 * total))
    assert sorted(visited[:total]) == sorted(visited[total:]) == list(range(total))


@settings(max_examples=30, deadline=None)
@given(shard_sets, st.integers(1, 9), st.integers(1, 50), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_any_position_can_be_asked_for_at_any_time(sizes: list[int], segments: int, window: int, random) -> None:  # type: ignore[no-untyped-def]
    total = sum(sizes)
    in_order = Order(sizes, 7, segments, window).locate(np.arange(3 * total))
    positions = [random.randrange(3 * total) for _ in range(100)]
    order = Order(sizes, 7, segments, window)
    assert [order.locate(np.array([t]))[0] for t in positions] == in_order[positions].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 50))
def test_segments_and_windows_lie_as_designed(sizes: list[int], segments: int, window: int) -> None:
    total = sum(sizes)
    count = min(segments, total)
    # Windows of one sample shuffle nothing: segment after segment, they show the concatenation of the shards.
    plain = Order(sizes, 3, segments, 1).locate(np.arange(total))
    in_segments = [plain[segment::count] for segment in range(count)]
    assert [len(part) for part in in_segments] == [total // count + (s < total % count) for s in range(count)]
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    concatenation = np.concatenate(in_segments)
    shards = list(dict.fromkeys(shard_of[concatenation].tolist()))
    assert concatenation.tolist() == [sample for shard in shards for sample in np.flatnonzero(shard_of == shard)]
    shuffled = Order(sizes, 3, segments, window).locate(np.arange(total))
    for segment, part in enumerate(in_segments):
        own = shuffled[segment::count]
        for start in range(0, len(part), window):
            assert sorted(own[start : start + window]) == sorted(part[start : start + window])


def by_definition(sizes: list[int], seed: int, segments: int, window: int, position: int) -> int:
    """One sample, step by step as the class's docstring has it."""
    total = sum(sizes)
    epoch, within = divmod(position, total)
    place, segment = divmod(within, segments)
    starts = [s * (total // segments) + min(s, total % segments) for s in range(segments + 1)]
    number, offset = divmod(place, window)
    begin = starts[segment] + number * window
    length = min(window, starts[segment + 1] - begin)
    at = begin + int(permutation(length, 1, seed, epoch, segment, number)[offset])
    for shard in permutation(len(sizes), 0, seed, epoch).tolist():
        if at < sizes[shard]:
            return sum(sizes[:shard]) + at
        at -= sizes[shard]
    raise AssertionError(at)


@pytest.mark.parametrize("window", [64, 4096, 70_000])
def test_ranks_of_a_large_set_find_what_the_definition_says(window: int) -> None:
    sizes = [1000 + 7 * shard for shard in range(300)]
    total, order = sum(sizes), Order(sizes, 11, 16, window)
    # Three ranks' batches, those of two epochs' border, and some out of order.
    places = [np.arange(r, 96, 3) for r in range(3)]
    places += [np.arange(total - 20, total + 20), np.array([9 * total + 5, 0, 4 * total - 1]), np.array([], np.int64)]
    for positions in places:
        assert order.locate(positions).tolist() == [by_definition(sizes, 11, 16, window, int(t)) for t in positions]
    # Many at a time are what few at a time are.
    positions = np.arange(total // 2, total // 2 + 2 * total, 7)
    one_by_one = np.concatenate([order.locate(part) for part in np.array_split(positions, len(positions) // 1000)])
    assert np.array_equal(order.locate(positions), one_by_one)


@pytest.mark.slow
def test_permutations_are_uniform() -> None:
    size, runs = 8, 4000
    visits = np.array([Order([size], seed, 1, size).locate(np.arange(size)) for seed in range(runs)])
    counts = np.array([np.bincount(column, minlength=size) for column in visits.T])
    assert stats.chisquare(counts, axis=None, ddof=2 * size - 2).pvalue > 1e-3
    pairs = np.bincount(visits[:, 0] * size + visits[:, 1], minlength=size * size).reshape(size, size)
    assert stats.chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > 1e-3


def test_epochs_seeds_and_segments_are_shuffled_unlike() -> None:
    sizes = [1000] * 8
    base = Order(sizes, 0, 4, 500).locate(np.arange(16000))
    other = Order(sizes, 1, 4, 500).locate(np.arange(8000))
    assert np.mean(base[:8000] == base[8000:]) < 0.01
    assert np.mean(base[:8000] == other) < 0.01
    # Two windows with the same permutation would show as a constant difference.
    ranks = [np.argsort(np.argsort(base[segment::4][:500])) for segment in range(4)]
    assert max(abs(np.corrcoef(a, b)[0, 1]) for i, a in enumerate(ranks) for b in ranks[:i]) < 0.2


def test_the_order_never_changes() -> None:
    """A checkpoint's position means nothing in another order: these values must stay as they are for ever."""
    assert Order([5, 3, 9], 42, 4, 3).locate(np.arange(17, 34)).tolist() == [
        1,
        7,
        10,
        14,
        0,
        5,
        9,
        15,
        2,
        6,
        11,
        13,
        4,
        8,
        12,
        16,
        3,
    ]
    assert BalancedOrder(np.array([0, 1, 1, -1, 2, 1]), 42).locate(np.arange(9)).tolist() == [0, 4, 1, 5, 0, 4, 0, 4, 2]
    assert permutation(6, 1, 2, 3).tolist() == [0, 2, 3, 4, 1, 5]
    assert uniforms(42, np.array([0, 10**12]), 2).tolist() == [
        [0.07433483021294607, 0.783211001973055],
        [0.2575707250256376, 0.2595443360992674],
    ]


@pytest.mark.parametrize("arguments", [([], 0), ([0], 0), ([4], 0, 0), ([4], 0, 4, 0)])
def test_nothing_to_order(arguments: tuple[list[int], int]) -> None:
    with pytest.raises(ValueError, match="must be >0"):
        Order(*arguments)


def test_sequential() -> None:
    assert SequentialOrder(3).locate(np.arange(2, 8)).tolist() == [2, 0, 1, 2, 0, 1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60).filter(lambda x: max(x) >= 0), st.integers(0, 9))
def test_balanced_rounds_and_passes(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    classes = sorted(set(labels) - {-1})
    rounds = 2 * max(labels.count(label) for label in classes)
    visits = BalancedOrder(array, seed).locate(np.arange(rounds * len(classes)))
    for number in range(rounds):
        in_round = visits[number * len(classes) : (number + 1) * len(classes)]
        assert sorted(array[in_round].tolist()) == classes
    for label in classes:
        members = np.flatnonzero(array == label).tolist()
        own = [v for v in visits.tolist() if labels[v] == label]
        for start in range(0, len(own) - len(members) + 1, len(members)):
            assert sorted(own[start : start + len(members)]) == members


def test_balanced_is_pure_and_needs_labels() -> None:
    labels = np.random.default_rng(0).integers(-1, 4, 100)
    in_order = BalancedOrder(labels, 5).locate(np.arange(1000))
    positions = np.random.default_rng(1).permutation(1000)
    assert np.array_equal(BalancedOrder(labels, 5).locate(positions), in_order[positions])
    with pytest.raises(ValueError, match="needs labels"):
        BalancedOrder(np.full(5, -1), 0)


def test_uniforms_are_uniform_and_independent() -> None:
    numbers = uniforms(3, np.arange(20000), 8)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    correlations = np.corrcoef(np.hstack([numbers[:-1], numbers[1:], uniforms(4, np.arange(19999), 8)]).T)
    assert np.abs(correlations - np.eye(24)).max() < 5 / np.sqrt(20000)


def test_uniforms_belong_to_positions() -> None:
    positions = np.random.default_rng(0).integers(0, 2**50, 100)
    together = uniforms(9, positions, 20)
    assert np.array_equal(together[::3, :5], uniforms(9, positions[::3], 5))
    assert len(np.unique(uniforms(9, np.arange(100), MAX_DRAWS))) == 100 * MAX_DRAWS
    with pytest.raises(ValueError, match="64"):
        uniforms(9, positions, 65)
