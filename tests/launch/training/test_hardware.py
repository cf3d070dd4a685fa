"""Devices by name: those that are there, and one line for the others; threads within a quota."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from launch.training.hardware import best_device, fit_threads


def test_devices_that_are_there() -> None:
    assert best_device("cpu") == torch.device("cpu")
    assert best_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "cuda:x", "mps:7", "gpu"])
def test_devices_that_are_not(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device '{name}': (no such device|there (is|are) \d+ GPUs?) here; name auto"
    ):
        best_device(name)


@pytest.mark.parametrize(("ranks", "threads"), [(1, 4), (2, 2), (8, 1)])
def test_ranks_share_a_quota_of_cores(ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("launch.training.hardware.granted_cores", lambda ranks: max(1, 4 // ranks))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    limited: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", limited.append)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(strategy=strategy, num_devices=ranks, world_size=ranks)
    fit_threads(trainer)
    assert limited == [threads]
    # The other ranks are started with it.
    assert os.environ.get("OMP_NUM_THREADS") == (str(threads) if ranks > 1 else None)
