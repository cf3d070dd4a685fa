"""Random numbers that are functions of integers: splitmix64 run as a counter, the same in every version of everything.

Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators".
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

#: The step between two counters' states, and the two multipliers of the finalizer.
GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def mix_key(*numbers: int) -> int:
    """One 64-bit key out of several integers, so that neighbouring ones are unrelated."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ number) + GAMMA) & _MASK
        mixed = (mixed ^ mixed >> 30) * FIRST & _MASK
        mixed = (mixed ^ mixed >> 27) * SECOND & _MASK
        mixed ^= mixed >> 31
    return mixed


def mix_seed(*numbers: int) -> int:
    """``mix_key`` in 63 bits: a seed for generators that take no negative number, as torch's."""
    return mix_key(*numbers) >> 1


def random_bits(key: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers of the splitmix64 sequence that starts at ``key``: uint64, of the shape of ``counters``.

    Args:
        key: 0 <= key < 2^64.
        counters: uint64, any shape: which numbers of the sequence, from 0.
    """
    bits = (counters + np.uint64(1)) * np.uint64(GAMMA) + np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(SECOND)
    return bits ^ (bits >> np.uint64(31))


def uniforms_of_bits(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Random bits to float64 in [0, 1), multiples of 2^-53."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(length: int, *key: int) -> NDArray[np.int64]:
    """The permutation of 0 to ``length`` - 1 that belongs to ``key``, int64."""
    places = np.arange(length, dtype=np.uint64)
    bits = random_bits(mix_key(*key), places)
    # Sorting numbers is twice as fast as sorting their places, so the places are carried in the lowest bits.
    low = np.uint64(max(1, (length - 1).bit_length()))
    carried = np.sort(bits >> low << low | places)
    high = carried >> low
    if (high[1:] == high[:-1]).any():  # one window of 4096 in a hundred million
        return np.argsort(bits, kind="stable")
    return (carried - (high << low)).astype(np.int64)


@contextmanager
def keeping_generators() -> Iterator[None]:
    """Context manager: afterwards, the global generators of Python, NumPy and torch are as they were."""
    # Before anything is imported: some packages draw when they are.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - which other people's code draws from
    import torch

    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
