"""Gradients that are averaged during the backward pass, against one sum after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.strategies.gradients import BUCKET_BYTES, LAST_BUCKET_BYTES, cut_into_buckets
from tests.launch.strategies.ranks import run_ranks

PROGRAM = "tests.launch.strategies.gradient_program"


def run(out: Path, ranks: int, *, bucket_bytes: int, compress: bool = False) -> list[dict[str, Any]]:
    run_ranks(PROGRAM, out, [{"bucket_bytes": bucket_bytes, "compress": compress}], ranks=ranks)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "bucket_bytes"), [(2, 256), (2, 2**20), (4, 4096)])
def test_gradients_are_those_of_one_sum_after_the_pass(ranks: int, bucket_bytes: int, tmp_path: Path) -> None:
    results = run(tmp_path, ranks, bucket_bytes=bucket_bytes)
    for result in results:
        assert len(result["after"]) == len(result["overlapped"]) == 18
        for after, overlapped, of_first in zip(
            result["after"], result["overlapped"], results[0]["overlapped"], strict=True
        ):
            for wanted, found, same in zip(after, overlapped, of_first, strict=True):
                assert (wanted is None) == (found is None)
                if wanted is not None:
                    # Of two numbers there is one sum; of more, it depends on where a bucket is cut.
                    tolerance = {"rtol": 0, "atol": 0} if ranks == 2 else {"rtol": 1e-6, "atol": 1e-6}
                    torch.testing.assert_close(found, wanted, **tolerance)
                    assert torch.equal(found, same)
    # Some pass left a layer out, and the last ones train another one no longer.
    missing = [sum(gradient is None for gradient in gradients) for gradients in results[0]["overlapped"]]
    assert missing[1] == missing[0] + 2
    assert missing[12] == missing[0] + 2


@pytest.mark.slow
def test_compressed_gradients_are_near(tmp_path: Path) -> None:
    rounded = 0
    for result in run(tmp_path, 2, bucket_bytes=4096, compress=True):
        for after, overlapped in zip(result["after"], result["overlapped"], strict=True):
            for wanted, found in zip(after, overlapped, strict=True):
                if wanted is not None:
                    assert found.dtype == wanted.dtype
                    assert (found - wanted).norm() <= 0.01 * wanted.norm()
                    rounded += not torch.equal(found, wanted)
    assert rounded > 100


@pytest.mark.slow
def test_changed_buffers_follow_the_first_rank(tmp_path: Path) -> None:
    first, second = (result["buffers"] for result in run(tmp_path, 2, bucket_bytes=4096))
    for when in ("first", "later"):
        for name, buffer in first[when].items():
            if (when, name) not in (("later", "filter"), ("later", "kept")):
                assert torch.equal(second[when][name], buffer), (when, name)
    assert first["later"]["running_mean"].any()
    assert [int(result["later"]["kept"][0]) for result in (first, second)] == [0, 1]
    # Mean, variance and counter of the norm, and the replaced one; then its statistics alone. No filter is sent again.
    assert first["sent"] == second["sent"] == [3 * 4 + 3 * 4 + 8 + 3 * 2, 3 * 4 + 3 * 4]


def test_buckets_end_with_a_small_one() -> None:
    half = BUCKET_BYTES // 2
    sizes = [half, half, half, 5 * BUCKET_BYTES, 5, LAST_BUCKET_BYTES // 2, LAST_BUCKET_BYTES // 2]
    cut = cut_into_buckets(sizes)
    assert [list(part) for part in cut] == [[0, 1], [2], [3], [4], [5, 6]]
    # A small network travels in several buckets as well, none of them tiny.
    small = [LAST_BUCKET_BYTES] * 12
    assert [len(part) for part in cut_into_buckets(small)] == [2, 2, 2, 2, 2, 1, 1]
    assert cut_into_buckets([1, 2, 3]) == [range(3)]
    assert cut_into_buckets([]) == []
