"""The order of samples: (seed, position) -> sample, as a pure function with no state and no I/O.

Positions count the samples of all ranks from the first one of training: position ``t`` of N samples is sample number
``t mod N`` of epoch ``t div N``. A global batch of G is G positions in a row; of W ranks, rank r takes every W-th of
them. So a stream is resumed anywhere, by any number of ranks that divides G, from the one integer ``t``.

All randomness is that of ``gesso.common.randomness``: unlike numpy's generators, it is the same in every version of
every library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from gesso.common.randomness import mix_key, permutation, random_bits, uniforms_of_bits

#: Draws that one position can have; position t's are numbers 64 t to 64 t + 63 of its seed's sequence.
MAX_DRAWS = 64
# Positions up to which windows are looked up one by one.
_FEW = 2048
# One branch of the generator each, so that no two of these uses ever share numbers.
_SHARDS, _WINDOW, _CLASSES, _MEMBERS, _UNIFORMS = range(5)


class SampleOrder(Protocol):
    """The interface of an order of samples."""

    samples: int

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """Maps positions (int64 [n], of any epochs) to samples (rows of the split's index, int64 [n])."""
        ...


class Order:
    """Shuffles a sharded data set thoroughly, yet reads each shard within a bounded part of the epoch.

    Each epoch permutes the shards and cuts their concatenation into segments of one length (the first ones may be one
    longer). The q-th sample of an epoch comes from segment q mod S, so that every batch mixes the whole data set.
    Inside a segment, windows of consecutive samples are permuted. Every epoch visits every sample exactly once.

    Args:
        shard_sizes: samples of each shard, in the order of the index.
        seed: any integer.
        segments: S, a property of the data set and never of the world size.
        window: samples that are permuted among each other; the larger, the better the shuffling and the more shards
            are read at a time: about S (1 + window / samples per shard).
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, segments: int = 64, window: int = 4096) -> None:
        self.samples = sum(shard_sizes)
        if self.samples < 1 or segments < 1 or window < 1:
            raise ValueError(
                f"an order of {self.samples} samples, {segments} segments, window {window}: all must be >0"
            )
        self.segments = min(segments, self.samples)
        self._sizes = np.asarray(shard_sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._seed, self._size = seed, window
        # Each segment has one open window; twice that, since segments change windows one after the other.
        self._window: Callable[[int, int, int], _Window] = lru_cache(2 * self.segments)(self._make_window)
        self._shards: Callable[[int], _ShuffledShards] = lru_cache(4)(self._make_shards)

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """See ``SampleOrder``. About 1 µs a sample when positions come in order, 0.2 µs a million at a time."""
        epochs, within = np.divmod(positions, self.samples)
        places, segments = np.divmod(within, self.segments)
        windows, offsets = np.divmod(places, self._size)
        if len(positions) <= _FEW:
            # A batch has few samples of each window.
            rows = zip(epochs.tolist(), segments.tolist(), windows.tolist(), offsets.tolist(), strict=True)
            found = [(window := self._window(e, s, w)).start + window.places.item(i) for e, s, w, i in rows]
            shuffled = np.array(found, np.int64)
        else:
            shuffled = self._many(epochs * self.segments + segments, windows, offsets)
        samples = np.empty_like(shuffled)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            shards = self._shards(epoch)
            nth = np.searchsorted(shards.ends, shuffled[now], side="right")
            samples[now] = shuffled[now] + shards.shift[nth]
        return samples

    def _many(self, rows: np.ndarray, windows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Places in the concatenation of the shuffled shards, each window being looked up once.

        Args:
            rows: epoch times segments plus segment.
            windows: numbers of the windows in their segments.
            offsets: in their windows.
        """
        most = self.samples // (self.segments * self._size) + 1
        codes, which = np.unique(rows * most + windows, return_inverse=True)
        triples = zip(codes // most // self.segments, codes // most % self.segments, codes % most, strict=True)
        found = [self._window(int(epoch), int(segment), int(window)) for epoch, segment, window in triples]
        starts = np.array([window.start for window in found])
        begins = np.cumsum([0, *(len(window.places) for window in found[:-1])])
        return starts[which] + np.concatenate([window.places for window in found])[begins[which] + offsets]

    def _make_window(self, epoch: int, segment: int, number: int) -> _Window:
        length, longer = divmod(self.samples, self.segments)
        start = segment * length + min(segment, longer) + number * self._size
        end = (segment + 1) * length + min(segment + 1, longer)
        places = permutation(min(self._size, end - start), _WINDOW, self._seed, epoch, segment, number)
        # A quarter of the memory: a rank may have thousands of windows open.
        return _Window(start, places.astype(np.uint16) if len(places) <= 1 << 16 else places)

    def _make_shards(self, epoch: int) -> _ShuffledShards:
        shards = permutation(len(self._sizes), _SHARDS, self._seed, epoch)
        ends = np.cumsum(self._sizes[shards])
        return _ShuffledShards(ends, self._starts[shards] - (ends - self._sizes[shards]))


class _Window(NamedTuple):
    """A window: where it starts in the concatenation of the shuffled shards, and its places from there, in the order of
    visiting."""

    start: int
    places: np.ndarray


class _ShuffledShards(NamedTuple):
    """An epoch's shards in their order: where each ends in the concatenation, and what takes a place to its sample."""

    ends: np.ndarray
    shift: np.ndarray


class SequentialOrder:
    """The samples in the order of the shards, or ``limit`` of them evenly spaced; for evaluation.

    Args:
        samples: number of samples.
        limit: number of them to visit; None: all.
        rows: int [samples], where these lie among all samples of the split; None: they are all.
    """

    def __init__(self, samples: int, limit: int | None = None, rows: np.ndarray | None = None) -> None:
        self.samples = samples
        self._limit = limit or samples
        self._rows = rows

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """See ``SampleOrder``."""
        places = positions % self._limit * self.samples // self._limit
        return places if self._rows is None else self._rows[places]


class BalancedOrder:
    """Visits the classes equally often, however many samples each has.

    In every round of K positions each of the K classes has one, in shuffled order; each class goes through its own
    samples in passes, shuffled anew for each pass. Samples without a label (-1) are never visited. Consecutive samples
    come from anywhere in the data set, so its shards had better be local.

    Args:
        labels: int [N], a class for each sample of the split's index.
        seed: any integer.
    """

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self.samples = len(labels)
        by_class = np.argsort(labels, kind="stable")
        classes, starts = np.unique(labels[by_class], return_index=True)
        members = np.split(by_class, starts[1:])
        self._members = [rows for label, rows in zip(classes.tolist(), members, strict=True) if label >= 0]
        if not self._members:
            raise ValueError("class-balanced sampling needs labels, and this data set has none")
        self._seed = seed
        self._round: Callable[[int], np.ndarray] = lru_cache(4)(
            lambda number: permutation(len(self._members), _CLASSES, seed, number)
        )
        self._pass: Callable[[int, int], np.ndarray] = lru_cache(2 * len(self._members))(self._make_pass)

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """See ``SampleOrder``."""
        rounds, turns = np.divmod(positions, len(self._members))
        pairs = zip(rounds.tolist(), turns.tolist(), strict=True)
        return np.array([self._sample(number, int(self._round(number)[turn])) for number, turn in pairs], np.int64)

    def _sample(self, number: int, label: int) -> int:
        """The sample of a class in a round: it has one in each, so in round n it is the class's n-th."""
        passes, place = divmod(number, len(self._members[label]))
        return int(self._pass(label, passes)[place])

    def _make_pass(self, label: int, number: int) -> np.ndarray:
        rows = self._members[label]
        return rows[permutation(len(rows), _MEMBERS, self._seed, label, number)]


def uniforms(seed: int, positions: np.ndarray, draws: int) -> np.ndarray:
    """Random numbers of positions: they depend on nothing but (seed, position), whatever rank or worker asks.

    Args:
        seed: any integer.
        positions: int64 [n].
        draws: k, numbers for each position, at most ``MAX_DRAWS``; the first k are the same for any k.

    Returns:
        float64 [n, k] in [0, 1), multiples of 2^-53.
    """
    if draws > MAX_DRAWS:
        raise ValueError(f"{draws} draws for a position; there are {MAX_DRAWS}")
    counters = positions.astype(np.uint64)[:, None] * np.uint64(MAX_DRAWS) + np.arange(draws, dtype=np.uint64)
    return uniforms_of_bits(random_bits(mix_key(_UNIFORMS, seed), counters.astype(np.uint64, copy=False)))
