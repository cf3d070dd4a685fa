"""Counted noise, against an implementation in whole numbers of any size, for any number of ranks, and by statistics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gesso.common.randomness import mix_key
from lightning_modules.core import noise
from lightning_modules.core.draws import NoiseRows
from lightning_modules.core.noise import Rows, normals, uniforms

CPU = torch.device("cpu")
MASK = (1 << 64) - 1
KINDS = [NoiseRows.normal, NoiseRows.uniform]
Kind = Callable[[NoiseRows, int, tuple[int, ...], torch.device], Tensor]


def reference_bits(key: int, row: int, elements: int) -> list[int]:
    """The 32 bits of each place of a row, in Python's own numbers."""
    half = 2 * math.ceil(elements / 4)
    places = []
    for word in range(half):
        z = (key + (row * half + word + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        places += [z & 0xFFFFFFFF, z >> 32]
    return places


def reference_normals(key: int, row: int, elements: int) -> list[float]:
    places = reference_bits(key, row, elements)
    half = len(places) // 2
    first, second = [], []
    for radius_bits, angle_bits in zip(places[:half], places[half:], strict=True):
        uniform = float((np.float32(radius_bits & 0x7FFFFFFF) + np.float32(0.5)) * np.float32(2.0**-31))
        radius = math.sqrt(-2 * math.log(uniform))
        angle = math.pi * (angle_bits - (angle_bits >> 31 << 32)) / 2**31
        first.append(radius * math.cos(angle))
        second.append(radius * math.sin(angle))
    return (first + second)[:elements]


def test_the_bits_are_those_of_splitmix64() -> None:
    # First numbers of the reference implementation (Vigna, splitmix64.c) seeded with 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    wanted = [place >> 8 for word in known for place in (word & 0xFFFFFFFF, word >> 32)]
    assert (uniforms([1234567], Rows(1), 8, CPU)[0].double() * 2**24).tolist() == wanted


@pytest.mark.parametrize("key", [0, 1234567, 1 << 63, MASK])
@pytest.mark.parametrize("elements", [1, 2, 3, 4, 5, 30, 129])
def test_uniforms_and_normals_equal_an_independent_implementation(key: int, elements: int) -> None:
    rows = Rows(3, first=2**40 + 5, step=7)
    drawn, normal = uniforms([key], rows, elements, CPU), normals([key], rows, elements, CPU)
    for number, row in enumerate((2**40 + 5, 2**40 + 12, 2**40 + 19)):
        bits = reference_bits(key, row, elements)[:elements]
        assert (drawn[number].double() * 2**24).tolist() == [place >> 8 for place in bits]
        assert normal[number].tolist() == pytest.approx(reference_normals(key, row, elements), abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (5,), (3, 7, 9)])
def test_global_noise_is_one_for_any_number_of_ranks_and_micro_batches(kind: Kind, shape: tuple[int, ...]) -> None:
    whole = [kind(rows, 16, shape, CPU) for rows in [NoiseRows(9, 2, 0, 1)] for _ in range(2)]
    assert whole[0].shape == (16, *shape)
    for ranks in (1, 2, 4):
        for parts in (1, 4):
            count = 16 // ranks // parts
            assembled = [torch.full((16, *shape), torch.nan) for _ in range(2)]
            for rank in range(ranks):
                for part in range(parts):
                    rows = NoiseRows(9, 2, part, parts, rank=rank, ranks=ranks)
                    for draw in assembled:
                        # As images are dealt: one by one to the ranks, each rank's cut into parts.
                        draw[rank::ranks][part * count : (part + 1) * count] = kind(rows, count, shape, CPU)
            assert torch.equal(assembled[0], whole[0])
            assert torch.equal(assembled[1], whole[1])


@pytest.mark.parametrize("kind", [normals, uniforms])
@pytest.mark.parametrize("words", [2, 6, 40, 1000])
def test_pieces_do_not_show(kind: Callable[..., Tensor], words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(7, 1), (5, 6), (4, 33), (1, 700), (0, 8), (3, 0)]
    whole = [kind([3], Rows(count, 1, 2), elements, CPU) for count, elements in shapes]
    monkeypatch.setattr(noise, "CPU_WORDS", words)
    for (count, elements), wanted in zip(shapes, whole, strict=True):
        pieces = kind([3], Rows(count, 1, 2), elements, CPU)
        assert pieces.shape == (count, elements)
        assert pieces.is_contiguous()
        torch.testing.assert_close(pieces, wanted, rtol=0, atol=0)


def test_a_row_is_made_alone_at_any_world_size() -> None:
    last = NoiseRows(1, 0, 0, 1, rank=511, ranks=512).normal(1, (10,), CPU)
    assert torch.equal(last, NoiseRows(1, 0, 0, 1).normal(512, (10,), CPU)[511:])


@pytest.mark.slow
def test_normals_are_standard_normal() -> None:
    drawn = normals([mix_key(1)], Rows(64), 3 * 5461, CPU).double().flatten()
    count = len(drawn)
    assert abs(drawn.mean().item()) < 4 / math.sqrt(count)
    assert abs(drawn.var().item() - 1) < 4 * math.sqrt(2 / count)
    assert abs(drawn.pow(4).mean().item() - 3) < 4 * math.sqrt(96 / count)
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


@pytest.mark.slow
def test_uniforms_are_24_bits_from_0_to_below_1() -> None:
    drawn = uniforms([mix_key(2)], Rows(64), 16384, CPU).double().flatten()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    places = drawn * 2**24
    assert torch.equal(places, places.round())
    assert {int(bit) for bit in (places.long() & 1).unique()} == {0, 1}
    assert abs(drawn.mean().item() - 0.5) < 4 / math.sqrt(12 * len(drawn))
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3


def test_no_bits_give_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every combination of the bits at the edges: all zeros, all ones, the sign alone, all but the sign.
    edges = [0, -1, -(2**31), 2**31 - 1]
    pairs = torch.tensor([[radius, angle] for radius in edges for angle in edges], dtype=torch.int32)

    def chunks(_: int, __: Rows, places: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        bits = pairs.T.reshape(2, 1, 16).contiguous()
        return [(bits, torch.empty(2, 1, 16), places.transpose(0, 1))]

    monkeypatch.setattr(noise, "_chunks", chunks)
    drawn = normals([0], Rows(1), 32, CPU)
    assert drawn.isfinite().all()
    assert drawn.abs().max().item() == pytest.approx(math.sqrt(-2 * math.log(2.0**-32)), rel=1e-5)


def test_rows_draws_updates_and_steps_are_independent() -> None:
    elements = 40_000
    samples = [
        NoiseRows(seed, update, 0, 1, draws=draw).normal(4, (elements,), CPU)
        for seed, update, draw in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1))
    ]
    rows = torch.cat(samples).double()
    halves = rows.view(2 * len(rows), elements // 2)
    # Moved on by one as well: a row that goes on where another began would show. Squares: a pair shares its radius.
    for series in (torch.cat([halves, halves.roll(1, 1)]), halves.square()):
        correlations = torch.corrcoef(series).fill_diagonal_(0)
        assert correlations.abs().max().item() < 4 / math.sqrt(elements / 2)
    assert len({tuple(row[:4].tolist()) for row in rows}) == len(rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_the_same_bits() -> None:
    for count, elements in ((3, 5), (8, 3 * 64 * 64), (1, 700)):
        rows, gpu = Rows(count, 3, 5), torch.device("cuda")
        assert torch.equal(uniforms([77], rows, elements, gpu).cpu(), uniforms([77], rows, elements, CPU))
        torch.testing.assert_close(
            normals([77], rows, elements, gpu).cpu(), normals([77], rows, elements, CPU), rtol=0, atol=1e-5
        )
