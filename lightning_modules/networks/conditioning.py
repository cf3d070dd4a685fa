"""Checks of a network's conditions (labels), and labels as vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def required_labels(labels: Tensor | None, num_classes: int) -> Tensor | None:
    """The labels a network is to use: none without classes, whatever was given.

    Raises:
        ValueError: the network has classes and there are no labels.
    """
    if num_classes and labels is None:
        raise ValueError(f"a network conditioned on {num_classes} classes needs labels; give them or set num_classes=0")
    return labels if num_classes else None


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels as rows with a single one; the label ``num_classes``, which means "no class", as a row of zeros.

    Unlike ``F.one_hot``, it does not read the labels back from the device to check them.

    Args:
        labels: int64 ``[N]`` in [0, num_classes].
        num_classes: length of the rows.
        dtype: of the result.

    Returns:
        ``[N, num_classes]``.
    """
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).to(dtype)
