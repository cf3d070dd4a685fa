"""A picture beyond memory: by tiles it is the same, in less memory. ``GESSO_TEST_SIDE=4096`` for the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SIDE = int(os.environ.get("GESSO_TEST_SIDE", "768"))
TILE = SIDE // 4
#: Pixels from the picture's border that are not compared.
BORDER = 16


def stylized(tile: int, out: Path) -> tuple[np.ndarray, float]:
    """The picture, and the MiB that it took beyond code, weights, content and result."""
    command = [sys.executable, "-m", "tests.lightning_modules.style.large_picture", str(SIDE), str(tile), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, peak = map(float, done.stdout.split())
    return np.load(out), peak - before


@pytest.mark.proof
@pytest.mark.timeout(3000)
def test_tiles_make_the_same_picture_in_a_fraction_of_the_memory(tmp_path: Path) -> None:
    whole, whole_memory = stylized(0, tmp_path / "whole.npy")
    tiled, tiled_memory = stylized(TILE, tmp_path / "tiled.npy")
    inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    difference = np.abs(whole[inner].astype(np.int16) - tiled[inner])
    off = difference.max()
    print(f"{SIDE} px: {whole_memory:.0f} MiB, in tiles of {TILE} {tiled_memory:.0f} MiB; at most {off} off")
    assert off <= 2
    # A tile sees 72 pixels more on each side; the result, and a double copy of the features' sums, come on top. Twice,
    # since the allocator's own holes weigh at this size: the bound must be far under the whole picture's.
    share = ((TILE + 2 * 72) / SIDE) ** 2
    assert tiled_memory < 2 * share * whole_memory + 3 * 4 * 3 * SIDE**2 / 2**20
