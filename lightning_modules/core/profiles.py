"""Weighting profiles of moving averages, as pure functions of the number of images seen.

Sources: Karras et al., Analyzing and Improving the Image Quality of StyleGAN (2020) and EDM (2022) for half-lives;
Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (EDM2, 2024, arXiv:2312.02696),
section 3 and appendix C, for the power function and the reconstruction of any length afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from gesso.common.ranges import NonNegative, check_options
from gesso.common.schedules import Schedule, at


class Profile(Protocol):
    """Weighting profile of one moving average."""

    @property
    def key(self) -> str:
        """A name for the profile, such as ``half_life_10`` or ``power_0.05``."""
        ...

    def decay(self, batch: int, images_seen: int) -> float:
        """The factor beta of the old average in a step's update.

        Args:
            batch: number of images of this step, over all ranks.
            images_seen: number of images seen, including this step's.
        """
        ...


@dataclass(frozen=True)
class HalfLife:
    """Exponential average: beta = 0.5^(batch / half-life).

    Args:
        kimg: half-life in thousands of images; it may grow by a schedule (R3GAN, Huang et al. 2024), which then has an
            ``over_kimg``.
        ramp_up: the half-life is never more than this share of the images seen, so that early averages forget the
            initialisation; 0: no bound.

    Raises:
        ValueError: a negative number, or a schedule without ``over_kimg``.
    """

    kimg: NonNegative | Schedule = 10.0
    ramp_up: NonNegative = 0.05

    def __post_init__(self) -> None:
        check_options(HalfLife, vars(self))
        if isinstance(self.kimg, Schedule) and self.kimg.over_kimg is None:
            raise ValueError("the schedule of a half-life needs over_kimg, where it has arrived")

    @property
    def key(self) -> str:
        """``half_life_`` and the kimg; of a schedule its first and last: ``half_life_0-5000``."""
        if isinstance(self.kimg, Schedule):
            return f"half_life_{self.kimg.start:g}-{self.kimg.end:g}"
        return f"half_life_{self.kimg:g}"

    def decay(self, batch: int, images_seen: int) -> float:
        """See ``Profile``."""
        half_life = at(self.kimg, images_seen - batch) * 1000
        if self.ramp_up > 0:
            half_life = min(half_life, images_seen * self.ramp_up)
        return 0.5 ** (batch / max(half_life, 1e-8))


@dataclass(frozen=True)
class Power:
    """Power-function average of EDM2: beta = (1 - batch / images seen)^(gamma + 1).

    Weights at t' images count in proportion to t'^gamma: the average grows longer with the training, and the
    initialisation counts for nothing.

    Args:
        width: the profile's standard deviation as a share of the training so far; EDM2 stores 0.05 and 0.10.

    Raises:
        ValueError: the width is not between 0 and 0.288, that of the plain mean.
    """

    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < 12**-0.5:
            raise ValueError(f"the relative width {self.width:g} of a power-function average; it goes from 0 to 0.288")

    @property
    def key(self) -> str:
        """``power_`` and the width."""
        return f"power_{self.width:g}"

    @property
    def gamma(self) -> float:
        """The exponent: the largest real root of g^3 + 7 g^2 + (16 - s^-2) g + (12 - s^-2) for the width s."""
        inverse = self.width**-2
        return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())

    def decay(self, batch: int, images_seen: int) -> float:
        """See ``Profile``."""
        return (1 - batch / images_seen) ** (self.gamma + 1)


def inner_product(images_a: float, gamma_a: float, images_b: float, gamma_b: float) -> float:
    """The integral of the product of two power-function profiles, in closed form (EDM2, appendix C, algorithm 3).

    A profile at T images with exponent g is the density (g + 1) t^g / T^(g + 1) on [0, T].
    """
    ratio = images_a / images_b
    exponent = gamma_b if images_a < images_b else -gamma_a
    top = (gamma_a + 1) * (gamma_b + 1) * ratio**exponent
    return top / ((gamma_a + gamma_b + 1) * max(images_a, images_b))


class Reconstruction(NamedTuple):
    """A weighted sum of stored averages that stands for another one.

    Attributes:
        factors: of each stored average.
        error: norm of the difference between the sum's profile and the wanted one, as a share of the wanted one's
            norm: 0 where they are the same, 1 where they have nothing in common.
    """

    factors: list[float]
    error: float


def reconstruction(stored: Sequence[tuple[int, Power]], images: int, wanted: Power) -> Reconstruction:
    """Factors of the stored averages whose weighted sum comes nearest to the ``wanted`` average at ``images`` images.

    Least squares between profiles, in fp64; how near it comes follows from the same inner products.

    Args:
        stored: images seen and profile of each stored average; later ones than ``images`` get the factor 0.
        images: number of images seen at the wanted average.
        wanted: its profile.

    Raises:
        ValueError: nothing is stored up to ``images``.
    """
    used = [number for number, (seen, _) in enumerate(stored) if seen <= images]
    if not used:
        raise ValueError(f"no snapshot of power-function averages up to {images:,} images")
    profiles = [(float(stored[number][0]), stored[number][1].gamma) for number in used]
    goal = (float(images), wanted.gamma)
    products = np.array([[inner_product(*a, *b) for b in profiles] for a in profiles], dtype=np.float64)
    target = np.array([inner_product(*a, *goal) for a in profiles], dtype=np.float64)
    # Scaled to a unit diagonal: the same solution, with smaller rounding errors.
    scale = 1 / np.sqrt(np.diag(products))
    solution = np.linalg.solve(products * scale[:, None] * scale[None, :], target * scale) * scale
    factors = [0.0] * len(stored)
    for number, factor in zip(used, solution.tolist(), strict=True):
        factors[number] = factor
    whole = inner_product(*goal, *goal)
    missed = float(whole - 2 * solution @ target + solution @ products @ solution)
    return Reconstruction(factors, math.sqrt(max(missed / whole, 0.0)))
