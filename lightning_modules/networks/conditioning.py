"""Checks of a network's conditions (labels)."""

from __future__ import annotations

from torch import Tensor


def required_labels(labels: Tensor | None, num_classes: int) -> Tensor | None:
    """The labels a network is to use: none without classes, whatever was given.

    Raises:
        ValueError: the network has classes and there are no labels.
    """
    if num_classes and labels is None:
        raise ValueError(f"a network conditioned on {num_classes} classes needs labels; give them or set num_classes=0")
    return labels if num_classes else None
