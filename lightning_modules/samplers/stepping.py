"""What all samplers share: the denoiser they call, the noise they are given, the steps they take.

The state is x = x0 + sigma e, float64, whatever the network computes in: with 1000 steps and sigma up to 80 the
rounding of float32 would be seen. Other parametrisations are converted (``schedules.Path``), never sampled in code of
their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: E[x0 | x] out of x = x0 + sigma e, float64 [N, ...], and sigma, float64 [N]; its answer may be of any precision.
Denoiser = Callable[[Tensor, Tensor], Tensor]

#: Standard normal numbers of the state's shape: a pure function of the number of the draw. Draw 0 is for the start;
#: samplers make 1, 2, ... on their way, so that one function may serve for both.
Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class Step:
    """What a callback is told about one step, before the state moves on.

    Args:
        index: of the step, from 0.
        sigma: noise level of ``x``.
        x: the state, float64 [N, ...].
        denoised: the denoiser's answer there, float64 [N, ...]: a picture for a strip of previews.
    """

    index: int
    sigma: float
    x: Tensor
    denoised: Tensor


Callback = Callable[[Step], None]


def evaluate(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """The denoiser's answer at one noise level, as float64 of the shape of ``x``."""
    return denoiser(x, x.new_full((len(x),), sigma)).to(torch.float64)


def observe(callback: Callback | None, index: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
    """Tells ``callback``, if there is one, about a step."""
    if callback is not None:
        callback(Step(index, sigma, x, denoised))


def check_sigmas(sigmas: Tensor) -> list[float]:
    """The noise levels as numbers.

    Args:
        sigmas: [steps + 1], falling, with 0 allowed at the end alone; or rising from above 0, for inversion.

    Raises:
        ValueError: fewer than two levels, one that is negative or not finite, or levels that neither fall nor rise.
    """
    levels: list[float] = sigmas.to(torch.float64).tolist() if sigmas.ndim == 1 else []
    if len(levels) < 2:
        raise ValueError(f"sigmas of shape {list(sigmas.shape)}: a sampler needs 1 step or more, so 2 levels or more")
    differences = [after - before for before, after in itertools.pairwise(levels)]
    falling, rising = all(d < 0 for d in differences), all(d > 0 for d in differences)
    if not (falling or rising) or not torch.isfinite(sigmas).all() or levels[-1] < 0 or levels[0] <= 0:
        raise ValueError(
            "sigmas must be finite and fall from step to step, to 0 at the earliest at the end (or rise from above 0)"
        )
    return levels


def walk(sigmas: Tensor) -> list[tuple[int, float, float]]:
    """Every step's index, noise level before it and noise level after it; see ``check_sigmas``."""
    return [(index, *pair) for index, pair in enumerate(itertools.pairwise(check_sigmas(sigmas)))]


def move(x: Tensor, denoised: Tensor, sigma: float, target: float) -> Tensor:
    """From ``sigma`` to ``target`` on the straight line through ``x`` and ``denoised``; at 0 exactly ``denoised``."""
    return denoised + (target / sigma) * (x - denoised)
