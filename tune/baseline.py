"""The first trial of a sweep, where it can be one: the recipe's own values, with which all others are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tune.space import Dimension, Space
from tune.sweep import Sweep


class NoBaseline(ValueError):
    """Why the recipe's own values are no trial of a sweep."""


def baseline(config: Mapping[str, Any], sweep: Sweep, space: Space) -> dict[str, Any]:
    """The recipe's own value of every dimension; of those without effect there, and without one, a drawn one.

    Args:
        config: the recipe as plain data.
        sweep: the sweep, without a baseline.
        space: its space.

    Raises:
        NoBaseline: a value cannot be drawn, so that the search could not learn from it; or the sweep has no place for
            it: a grid's cells are given, and a population changes its trials.
    """
    if sweep.population:
        raise NoBaseline(f"{sweep.scheduler} changes the values of its trials")
    if any(dimension.is_grid for dimension in space):
        raise NoBaseline("the trials are the cells of a grid")
    if sweep.num_samples < 2:
        raise NoBaseline("there is one trial alone")
    generator = np.random.default_rng(sweep.seed)
    values: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for dimension in space:
        effective = all(name in kept and kept[name] in allowed for name, allowed in dimension.when.items())
        known, value = own_value(config, dimension.name)
        fits = known and may_be_drawn(dimension, value, exactly=sweep.search == "tpe")
        if effective and not fits:
            shown = f"the recipe's {dimension.name} is {value!r}" if known else f"the recipe has no {dimension.name}"
            raise NoBaseline(f"{shown}, which {dimension.text} never draws")
        values[dimension.name] = value if fits else dimension.domain.sample(random_state=generator)
        if effective:
            kept[dimension.name] = value
    return values


def own_value(config: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Whether a recipe has an option, and its value; a class's options lie under ``init_args``."""
    node: Any = config
    for part in name.split("."):
        if isinstance(node, Mapping) and part not in node and isinstance(node.get("init_args"), Mapping):
            node = node["init_args"]
        if not isinstance(node, Mapping) or part not in node:
            return False, None
        node = node[part]
    return True, node


def may_be_drawn(dimension: Dimension, value: object, *, exactly: bool) -> bool:
    """Whether a dimension holds a value.

    Args:
        dimension: the dimension.
        value: of the option.
        exactly: whether values between the steps of a range count as none.
    """
    if dimension.values:
        return value in dimension.values
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    if exactly and dimension.text.startswith("q"):
        return False
    return dimension.bounds is None or dimension.bounds[0] <= value <= dimension.bounds[1]
