"""Numbers are what their options may be; the error names the option."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from gesso.common.ranges import Count, Decay, NonNegative, Positive, Range, Share, Whole, check_options
from gesso.common.schedules import Schedule


@dataclass(frozen=True)
class Rates:
    lr: NonNegative = 1e-3
    beta: Decay = 0.9


class Below:
    def __init__(self, *, parts: Count = 1, clip: Positive | None = None, **more: Any) -> None: ...


class Model(Below):
    def __init__(
        self,
        size: Annotated[int, Range(16, 64)] = 32,
        lengths: Positive | list[Positive] = 1.0,
        weights: tuple[NonNegative, Share] = (1.0, 1.0),
        widths: Sequence[Whole] = (),
        rates: Rates = Rates(),  # noqa: B008
        gamma: NonNegative | Schedule = 1.0,
        share: Share | Schedule | None = None,
        lives: Positive | list[Positive] | Schedule = 1.0,
        free: float = 0.0,
        bound: float = math.inf,
        **more: Any,
    ) -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 16, "lengths": 3, "weights": [0, 1], "widths": [0, 5], "free": -1e30, "bound": math.inf},
        {"size": 64, "lengths": [0.1, 2.0], "clip": None, "parts": 1},
        {"gamma": 2, "share": 0.5, "lives": [1, 2]},
        {"gamma": {"start": 0, "end": 2.0, "over_kimg": 1}, "share": Schedule(0, 1), "lives": {"start": 0, "end": 3}},
        {"clip": 1e-9, "rates": {"lr": 0}, "unknown": 3},
        {"rates": Rates(), "size": True, "free": "text", "widths": None},
    ],
)
def test_right_numbers_are_taken(options: dict[str, Any]) -> None:
    check_options(Model, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "model.size is 15; it must be from 16 to 64"),
        ({"lengths": 0}, "model.lengths is 0; it must be more than 0"),
        ({"lengths": [1.0, -2.0]}, "model.lengths[1] is -2.0; it must be more than 0"),
        ({"weights": [1.0, 1.5]}, "model.weights[1] is 1.5; it must be from 0 to 1"),
        ({"widths": [3, -1]}, "model.widths[1] is -1; it must be 0 or more"),
        ({"rates": {"beta": 1.0}}, "model.rates.beta is 1.0; it must be 0 or more and less than 1"),
        ({"rates": {"lr": math.nan}}, "model.rates.lr is nan; it must be 0 or more"),
        ({"rates": 3}, "model.rates is 3; it must map options to values: lr, beta"),
        ({"gamma": -1}, "model.gamma is -1; it must be 0 or more"),
        (
            {"gamma": "much"},
            "model.gamma is 'much'; it must map options to values: start, end, over_kimg, hold_kimg, course",
        ),
        ({"gamma": {"start": 1, "end": -0.5}}, "model.gamma.end is -0.5; it must be 0 or more"),
        ({"gamma": {"start": 1, "end": 0, "over_kimg": 0}}, "model.gamma.over_kimg is 0; it must be more than 0"),
        ({"share": Schedule(0, 1.5)}, "model.share.end is 1.5; it must be from 0 to 1"),
        ({"lives": [0.0]}, "model.lives[0] is 0.0; it must be more than 0"),
        ({"lives": {"start": -1, "end": 1}}, "model.lives.start is -1; it must be 0 or more"),
        ({"parts": 0}, "model.parts is 0; it must be 1 or more"),
        ({"clip": -1.0}, "model.clip is -1.0; it must be more than 0"),
        ({"clip": math.inf}, "model.clip is inf; it must be more than 0"),
        ({"free": math.nan}, "model.free is nan; it must be a finite number"),
        ({"unknown": {"deep": [-math.inf]}}, "model.unknown.deep[0] is -inf; it must be a finite number"),
    ],
)
def test_others_are_refused_by_the_name_of_their_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_options(Model, options, "model.")
