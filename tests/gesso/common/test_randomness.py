"""The counter-based random numbers, against the reference implementation's."""

from __future__ import annotations

import numpy as np

from gesso.common.randomness import mix_key, mix_seed, permutation, random_bits, uniforms_of_bits


def test_the_generator_is_splitmix64() -> None:
    # First numbers of the reference implementation (Vigna, splitmix64.c) seeded with 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert random_bits(1234567, np.arange(5, dtype=np.uint64)).tolist() == known
    assert random_bits(1234567, np.array([[4], [0]], np.uint64)).tolist() == [[known[4]], [known[0]]]


def test_a_key_of_one_number_is_the_sequence_s_first() -> None:
    first = [int(random_bits(seed, np.zeros(1, np.uint64))[0]) for seed in (0, 1, 2**63)]
    assert [mix_key(seed) for seed in (0, 1, 2**63)] == first
    assert [mix_seed(seed) for seed in (0, 1, 2**63)] == [bits >> 1 for bits in first]


def test_seeds_of_neighbours_are_unrelated() -> None:
    seeds = {mix_seed(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(0, 1) != mix_seed(1, 0)


def test_uniforms_are_below_one() -> None:
    edges = uniforms_of_bits(np.array([0, 2**64 - 1, 2**63], np.uint64))
    assert edges.tolist() == [0.0, 1 - 2.0**-53, 0.5]


def test_a_permutation_belongs_to_its_key() -> None:
    assert sorted(permutation(1000, 3, -1)) == list(range(1000))
    assert not np.array_equal(permutation(1000, 3, -1), permutation(1000, 3, 0))
