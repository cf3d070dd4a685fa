"""Devices by name: those that are there, and one line for the others."""

from __future__ import annotations

import pytest
import torch

from launch.training.hardware import best_device


def test_devices_that_are_there() -> None:
    assert best_device("cpu") == torch.device("cpu")
    assert best_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "cuda:x", "mps:7", "gpu"])
def test_devices_that_are_not(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device '{name}': (no such device|there (is|are) \d+ GPUs?) here; name auto"
    ):
        best_device(name)
