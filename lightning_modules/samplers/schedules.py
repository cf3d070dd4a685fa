"""Noise levels, and the parametrisations of one and the same diffusion.

All count noise by sigma, the noise's standard deviation beside data of factor 1: x = x0 + sigma e. Tables are float64,
from much noise to none. Times of a flow run in one direction: the data are at t = 0, the noise at t = 1.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from gesso.common.arguments import whole
from gesso.common.ranges import Range

Number = TypeVar("Number", float, Tensor)

#: Stands for sigma = infinity, where a flow begins: x is noise alone, up to a millionth of the data.
FLOW_SIGMA_MAX = 1e6


def edm_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """EDM's noise levels (Karras et al. 2022, arXiv:2206.00364, eq. 5): even in sigma^(1/rho), then 0.

    Args:
        steps: 1 or more.
        sigma_min, sigma_max: the last level above 0 and the first one, 0 < sigma_min < sigma_max.
        rho: the larger, the more of the steps are at little noise; above 0.

    Returns:
        float64 [steps + 1].

    Raises:
        ValueError: a number outside its range.
    """
    steps = whole(steps, "steps", Range(1))
    if not 0 < sigma_min < sigma_max < math.inf or not rho > 0:
        raise ValueError(f"sigma from {sigma_min} to {sigma_max} with rho {rho}: choose 0 < min < max and rho > 0")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (high + torch.linspace(0, 1, steps, dtype=torch.float64) * (low - high)) ** rho
    # The ends are these numbers themselves, not what is left of them after a root and a power.
    levels[-1] = sigma_min
    levels[0] = sigma_max
    return torch.cat([levels, levels.new_zeros(1)])


def linear_alphas_bar(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """DDPM's cumulative products of 1 - beta, with beta from ``first`` to ``last`` (Ho et al. 2020, section 4).

    Returns:
        float64 [steps], falling, in (0, 1).

    Raises:
        ValueError: fewer than 1 step, or betas that do not rise inside (0, 1).
    """
    steps = whole(steps, "steps", Range(1))
    if not 0 < first <= last < 1:
        raise ValueError(f"betas from {first} to {last}: choose 0 < first <= last < 1")
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), 0)


def cosine_alphas_bar(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """The cosine schedule (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17).

    It is f(t) / f(0), f(t) = cos^2((t + offset) / (1 + offset) pi/2), with every beta at most ``max_beta``.

    Returns:
        float64 [steps], falling, in (0, 1).

    Raises:
        ValueError: fewer than 1 step.
    """
    steps = whole(steps, "steps", Range(1))
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    products = torch.cos((times + offset) / (1 + offset) * (math.pi / 2)) ** 2
    betas = (1 - products[1:] / products[:-1]).clamp(max=max_beta)
    return torch.cumprod(1 - betas, 0)


def ddpm_sigmas(alphas_bar: Tensor, steps: int) -> Tensor:
    """``steps`` noise levels of a discrete model, evenly out of its own, the noisiest first, then 0.

    Args:
        alphas_bar: float64 [T], falling.
        steps: 1 to T.

    Returns:
        float64 [steps + 1].

    Raises:
        ValueError: ``steps`` outside its range.
    """
    steps = whole(steps, "steps", Range(1, len(alphas_bar)))
    places = torch.linspace(len(alphas_bar) - 1, 0, steps, dtype=torch.float64).round().long()
    levels = sigma_of_alpha_bar(alphas_bar.to(torch.float64)[places])
    return torch.cat([levels, levels.new_zeros(1)])


def flow_times(steps: int, shift: float = 1.0) -> Tensor:
    """Times from 1 (noise) to 0 (data), even, or bent to the noisy end: t' = shift t / (1 + (shift - 1) t).

    Args:
        steps: 1 or more.
        shift: 1: even; above 1 for large pictures (Esser et al. 2024, arXiv:2403.03206, eq. 23); above 0.

    Returns:
        float64 [steps + 1], falling.

    Raises:
        ValueError: a number outside its range.
    """
    steps = whole(steps, "steps", Range(1))
    if not 0 < shift < math.inf:
        raise ValueError(f"shift {shift}: choose a number above 0")
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * times / (1 + (shift - 1) * times)


def flow_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """The noise levels of ``flow_times``, float64 [steps + 1]; the first is ``FLOW_SIGMA_MAX`` instead of infinity."""
    return sigma_of_time(flow_times(steps, shift)).clamp(max=FLOW_SIGMA_MAX)


def sigma_of_alpha_bar(alpha_bar: Number) -> Number:
    """sigma = sqrt((1 - alpha_bar) / alpha_bar)."""
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def alpha_bar_of_sigma(sigma: Number) -> Number:
    """alpha_bar = 1 / (1 + sigma^2)."""
    return 1 / (1 + sigma * sigma)


def sigma_of_time(time: Number) -> Number:
    """sigma = t / (1 - t), for a flow's time in [0, 1)."""
    return time / (1 - time)


def time_of_sigma(sigma: Number) -> Number:
    """A flow's time t = sigma / (1 + sigma)."""
    return sigma / (1 + sigma)


class Path(Protocol):
    """A parametrisation z = a x0 + b e with b = a sigma, and a time of its own that a solver may step in."""

    def scale(self, sigma: Number) -> Number:
        """a, the factor of the data: z = a x, with x = x0 + sigma e."""
        ...

    def time(self, sigma: float) -> float:
        """The path's time at ``sigma``."""
        ...

    def slopes(self, sigma: float) -> tuple[float, float]:
        """da/dt and db/dt there: dz/dt = a' x0 + b' e."""
        ...


class _VarianceExploding:
    """z = x0 + sigma e, with time sigma (EDM)."""

    def scale(self, sigma: Number) -> Number:
        return 0 * sigma + 1

    def time(self, sigma: float) -> float:
        return sigma

    def slopes(self, sigma: float) -> tuple[float, float]:
        return 0.0, 1.0


class _VariancePreserving:
    """z = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) e, the time being the angle atan(sigma) (DDPM)."""

    def scale(self, sigma: Number) -> Number:
        return alpha_bar_of_sigma(sigma) ** 0.5

    def time(self, sigma: float) -> float:
        return math.atan(sigma)

    def slopes(self, sigma: float) -> tuple[float, float]:
        scale = self.scale(sigma)
        return -scale * sigma, scale


class _Flow:
    """z = (1 - t) x0 + t e (flow matching, rectified flow)."""

    def scale(self, sigma: Number) -> Number:
        return 1 / (1 + sigma)

    def time(self, sigma: float) -> float:
        return time_of_sigma(sigma)

    def slopes(self, sigma: float) -> tuple[float, float]:
        return -1.0, 1.0


VE: Path = _VarianceExploding()
VP: Path = _VariancePreserving()
FLOW: Path = _Flow()


def convert(x: Tensor, sigma: Tensor, source: Path, target: Path) -> Tensor:
    """The same picture and noise in another parametrisation.

    Args:
        x: [N, ...] on the path ``source``.
        sigma: [N], finite.

    Returns:
        Of the shape of ``x``, on the path ``target``.
    """
    return x * beside(target.scale(sigma) / source.scale(sigma), x)


def beside(factors: Tensor, x: Tensor) -> Tensor:
    """Factors [N] in a shape that broadcasts to ``x`` [N, ...]."""
    return factors.view(-1, *[1] * (x.ndim - 1))
