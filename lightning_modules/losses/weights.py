"""Weights of losses: what a person, or a sweep, may set them to."""

from __future__ import annotations

import math

from gesso.common.schedules import Schedule


def check_weights(**weights: float | Schedule) -> None:
    """Raises a ValueError that names a weight which is less than 0, and so would reward what it is to punish."""
    for name, weight in weights.items():
        reached: dict[str, float]
        if isinstance(weight, Schedule):
            reached = {f"{name}.{field}": getattr(weight, field) for field in weight.values}
        else:
            reached = {name: weight}
        for option, value in reached.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{option} is {value}; the weight of a loss must be 0 or more")
