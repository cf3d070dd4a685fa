"""How samples are made: the options of recipes, of the command line and of Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from gesso.common.arguments import one_of
from gesso.common.ranges import Count, NonNegative, Positive, check_options

SamplerName = Literal[
    "euler", "ddim", "heun", "dpmpp-2m", "dpmpp-2s", "edm-stochastic", "ddpm", "consistency", "flow-map"
]


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are made.

    Args:
        sampler: its name, see ``samplers.table``; ``ddim`` is ``euler``; ``flow-map`` is of a MeanFlow alone.
        steps: from noise to picture; ``heun``, ``dpmpp-2s`` and ``edm-stochastic`` take 2 evaluations of the network in
            each but the last.
        guidance: classifier-free guidance; 1: none, above 1: further towards the class.
        guidance_from, guidance_to: guided only at noise levels sigma between these; null: up to all noise.

    Raises:
        ValueError: an unknown sampler, or a number out of its range.
    """

    sampler: SamplerName = "heun"
    steps: Count = 18
    guidance: NonNegative = 1.0
    guidance_from: NonNegative = 0.0
    guidance_to: Positive | None = None

    def __post_init__(self) -> None:
        one_of(self.sampler, "sampler", get_args(SamplerName))
        check_options(type(self), vars(self))
        if not self.guidance_from < self.guidance_until:
            raise ValueError(f"guidance_from is {self.guidance_from}; it must be less than guidance_to")

    @property
    def guidance_until(self) -> float:
        """``guidance_to`` as a number."""
        return math.inf if self.guidance_to is None else self.guidance_to
