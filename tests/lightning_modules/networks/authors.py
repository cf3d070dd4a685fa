"""Comparison with the numbers that the authors' networks gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def check_numbers(reference: Path, found: Mapping[str, Tensor], name: str, tolerance: float) -> None:
    """Compares tensors with the arrays ``name/key`` of an npz file, each by its largest difference.

    Args:
        reference: the file.
        found: by key.
        name: of the case.
        tolerance: of the difference, as a share of the array's largest number.
    """
    with np.load(reference) as kept:
        for key, ours in found.items():
            expected = torch.from_numpy(kept[f"{name}/{key}"])
            apart = (ours.detach().double() - expected).abs().max() / expected.abs().max()
            assert apart <= tolerance, f"{key}: {apart:.2g}"
