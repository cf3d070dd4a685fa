"""Profiles of moving averages against EDM2's printed numbers, direct sums and numerical integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from gesso.common.schedules import Schedule
from lightning_modules.core.profiles import HalfLife, Power, inner_product, reconstruction


def weights_of(profile: HalfLife | Power, images: list[int]) -> np.ndarray:
    """How much each step's weights count in the end: the recursion, unrolled."""
    weights = np.zeros(len(images))
    for number, seen in enumerate(images):
        decay = profile.decay(seen - (images[number - 1] if number else 0), seen)
        weights *= decay
        weights[number] = 1 - decay
    return weights


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.972), (0.10, 6.937), (0.25, 0.7198)])
def test_gamma_is_that_of_the_paper(width: float, gamma: float) -> None:
    assert Power(width).gamma == pytest.approx(gamma, rel=1e-4)


@pytest.mark.parametrize("width", [0.02, 0.075, 0.2])
def test_the_width_is_the_profiles_standard_deviation(width: float) -> None:
    gamma = Power(width).gamma
    moments = [quad(lambda t, k=k: (gamma + 1) * t ** (gamma + k), 0, 1)[0] for k in (0, 1, 2)]
    assert moments[0] == pytest.approx(1)
    assert (moments[2] - moments[1] ** 2) ** 0.5 == pytest.approx(width, rel=1e-6)


def test_steps_count_by_the_power_function() -> None:
    images = [8, 16, 24, 40, 64, 96, 97, 200]
    edges = np.array([0, *images]) / images[-1]
    for width in (0.05, 0.1, 0.25):
        exact = np.diff(edges ** (Power(width).gamma + 1))
        np.testing.assert_allclose(weights_of(Power(width), images), exact, rtol=1e-9, atol=1e-15)


def test_a_half_life_halves_and_its_ramp_bounds_it() -> None:
    profile = HalfLife(1.0, ramp_up=0.0)
    assert profile.decay(1000, 5000) == 0.5
    assert profile.decay(250, 5000) ** 4 == pytest.approx(0.5)
    # 5 % of 2,000 images are 100.
    assert HalfLife(1.0, ramp_up=0.05).decay(100, 2000) == 0.5


def test_a_half_life_may_grow() -> None:
    profile = HalfLife(Schedule(0.0, 2.0, over_kimg=10.0, course="linear"), ramp_up=0.0)
    # Of the images before the step: at first the average is the weights themselves.
    assert profile.decay(100, 100) == 0
    assert profile.decay(1000, 6000) == 0.5
    assert profile.decay(1000, 12_000) == pytest.approx(0.5**0.5)
    assert profile.key == "half_life_0-2"
    with pytest.raises(ValueError, match="half-life needs over_kimg"):
        HalfLife(Schedule(0.0, 2.0))


def test_inner_products_are_the_integrals() -> None:
    for a, b in (((3.0, 16.9), (5.0, 6.9)), ((5.0, 2.0), (2.0, 16.9)), ((4.0, 1.0), (4.0, 7.0))):

        def density(t: float, images: float, gamma: float) -> float:
            return (gamma + 1) * t**gamma / images ** (gamma + 1)

        integral = quad(lambda t: density(t, *a) * density(t, *b), 0, min(a[0], b[0]))[0]  # noqa: B023
        assert inner_product(*a, *b) == pytest.approx(integral, rel=1e-8)
        assert inner_product(*b, *a) == pytest.approx(integral, rel=1e-8)


def test_a_stored_average_is_its_own_reconstruction() -> None:
    stored = [(images, Power(width)) for images in range(1000, 33_000, 1000) for width in (0.05, 0.1)]
    for number in (1, 40, 63):
        images, power = stored[number]
        factors = np.array(reconstruction(stored, images, power).factors)
        wanted = np.zeros(len(stored))
        wanted[number] = 1
        np.testing.assert_allclose(factors, wanted, atol=1e-5)
        assert not factors[2 * (images // 1000) :].any()


@pytest.mark.slow
def test_any_width_comes_out_of_two() -> None:
    images = list(range(8, 8001, 8))
    moments = [images.index(seen) for seen in range(1000, 8001, 1000)]
    stored = [(images[moment], Power(width)) for moment in moments for width in (0.05, 0.1)]
    profiles = [
        np.pad(weights_of(power, images[: images.index(seen) + 1]), (0, len(images) - images.index(seen) - 1))
        for seen, power in stored
    ]
    for width in (0.06, 0.075, 0.09):
        factors, _ = reconstruction(stored, 8000, Power(width))
        ours = sum(f * profile for f, profile in zip(factors, profiles, strict=True))
        theirs = weights_of(Power(width), images)
        assert np.sum(ours) == pytest.approx(1, abs=2e-3)
        assert np.abs(ours - theirs).sum() < 0.05


@pytest.mark.parametrize("width", [0.02, 0.05, 0.075, 0.2])
def test_the_error_is_that_of_the_sum_of_profiles(width: float) -> None:
    """Against the profiles themselves, added up at 20,000 moments."""
    stored = [(images, Power(kept)) for images in (250, 500, 750, 1000) for kept in (0.05, 0.1)]
    factors, error = reconstruction(stored, 1000, Power(width))
    times = (np.arange(20_000) + 0.5) / 20

    def profile(images: int, power: Power) -> np.ndarray:
        density = (power.gamma + 1) * times**power.gamma / images ** (power.gamma + 1.0)
        return np.where(times <= images, density, 0.0)

    wanted = profile(1000, Power(width))
    ours = sum(factor * profile(*one) for factor, one in zip(factors, stored, strict=True))
    assert error == pytest.approx(float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)), rel=1e-2, abs=1e-4)
    assert (error < 0.05) == (0.05 <= width <= 0.1)


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="relative width 0.3"):
        Power(0.3)
    with pytest.raises(ValueError, match=r"kimg is -1"):
        HalfLife(-1.0)
    with pytest.raises(ValueError, match="no snapshot"):
        reconstruction([(2000, Power(0.1))], 1000, Power(0.1))
