"""Weights of losses: what a person, or a sweep, may set them to."""

from __future__ import annotations

import math


def check_weights(**weights: float) -> None:
    """Raises a ValueError that names a weight which is less than 0, and so would reward what it is to punish."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name} is {weight}; the weight of a loss must be 0 or more")
