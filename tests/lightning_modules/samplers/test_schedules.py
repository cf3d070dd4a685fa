from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.samplers import schedules
from lightning_modules.samplers.schedules import FLOW, VE, VP, Path, convert
from tests.diffusions import standard_normal


def test_edm_sigmas() -> None:
    """Equation 5 by hand, its ends exact; EDM's own 18 levels, to the digits of the paper's formula."""
    sigmas = schedules.edm_sigmas(18)
    assert sigmas.dtype == torch.float64
    assert sigmas.shape == (19,)
    assert [sigmas[0].item(), sigmas[17].item(), sigmas[18].item()] == [80, 0.002, 0]
    for place in range(18):
        expected = (80 ** (1 / 7) + place / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert sigmas[place].item() == pytest.approx(expected, rel=1e-13)
    assert (sigmas.diff() < 0).all()
    assert schedules.edm_sigmas(1).tolist() == [80, 0]
    assert schedules.edm_sigmas(3, 1, 3, rho=1).tolist() == [3, 2, 1, 0]


def test_linear_alphas_bar() -> None:
    bars, product = schedules.linear_alphas_bar(), 1.0
    for place in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * place / 999)
        assert bars[place].item() == pytest.approx(product, rel=1e-12)
    assert bars[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)  # the end of DDPM's
    assert (bars.diff() < 0).all()


def test_cosine_alphas_bar() -> None:
    bars = schedules.cosine_alphas_bar()

    def product(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    for place in range(0, 999, 37):
        assert bars[place].item() == pytest.approx(product((place + 1) / 1000) / product(0), rel=1e-9)
    assert bars[-1].item() == pytest.approx(bars[-2].item() * (1 - 0.999), rel=1e-9)  # there beta would be 1
    assert (bars.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 18, 250, 999, 1000])
def test_levels_of_a_discrete_model_are_its_own(steps: int) -> None:
    bars = schedules.cosine_alphas_bar()
    sigmas, own = schedules.ddpm_sigmas(bars, steps), schedules.sigma_of_alpha_bar(bars)
    assert sigmas.shape == (steps + 1,)
    assert (sigmas.diff() < 0).all()
    assert torch.isin(sigmas[:-1], own).all()
    assert sigmas[0] == own[-1]
    assert sigmas[-1] == 0
    if steps > 1:
        assert sigmas[-2] == own[0]


def test_flow_times_run_from_noise_to_data() -> None:
    assert schedules.flow_times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert schedules.flow_times(2, shift=3).tolist() == [1, 0.75, 0]
    sigmas = schedules.flow_sigmas(4)
    assert sigmas.tolist() == pytest.approx([schedules.FLOW_SIGMA_MAX, 3, 1, 1 / 3, 0], rel=1e-12)
    # A shift multiplies sigma.
    torch.testing.assert_close(schedules.flow_sigmas(8, shift=3)[1:], 3 * schedules.flow_sigmas(8)[1:])


def test_conversions_of_levels() -> None:
    sigmas = schedules.edm_sigmas(50)[:-1]
    torch.testing.assert_close(
        schedules.sigma_of_alpha_bar(schedules.alpha_bar_of_sigma(sigmas)), sigmas, rtol=1e-9, atol=0
    )
    torch.testing.assert_close(schedules.sigma_of_time(schedules.time_of_sigma(sigmas)), sigmas, rtol=1e-9, atol=0)
    assert schedules.sigma_of_alpha_bar(0.5) == 1
    assert schedules.time_of_sigma(1.0) == 0.5
    assert schedules.sigma_of_time(0.75) == 3


def test_conversions_of_pictures() -> None:
    """Out of one picture and one noise: x0 + sigma e, sqrt(a) x0 + sqrt(1 - a) e, (1 - t) x0 + t e."""
    x0, e = standard_normal(5, 3, 2, 2), standard_normal(5, 3, 2, 2, seed=1)
    sigma = torch.tensor([0.002, 0.1, 1, 5, 80], dtype=torch.float64)
    level, bar = sigma.view(5, 1, 1, 1), 1 / (1 + sigma.view(5, 1, 1, 1) ** 2)
    time = level / (1 + level)
    states = {VE: x0 + level * e, VP: bar.sqrt() * x0 + (1 - bar).sqrt() * e, FLOW: (1 - time) * x0 + time * e}
    for source, given in states.items():
        for target, expected in states.items():
            torch.testing.assert_close(convert(given, sigma, source, target), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", [VE, VP, FLOW])
@pytest.mark.parametrize("sigma", [0.01, 0.7, 30.0])
def test_slopes_are_derivatives(path: Path, sigma: float) -> None:
    """Of the factors a and a sigma by the path's time, against central differences."""
    step = 1e-5 * sigma
    below, above = sigma - step, sigma + step
    elapsed = path.time(above) - path.time(below)
    data = (path.scale(above) - path.scale(below)) / elapsed
    noise = (path.scale(above) * above - path.scale(below) * below) / elapsed
    assert path.slopes(sigma) == pytest.approx((data, noise), rel=1e-6, abs=1e-6)


def test_bad_numbers_are_refused_in_a_line() -> None:
    bars = schedules.linear_alphas_bar(10)
    for call, message in [
        (lambda: schedules.edm_sigmas(0), "steps is 0; it must be a whole number 1 or more"),
        (lambda: schedules.flow_times(0), "steps is 0"),
        (lambda: schedules.linear_alphas_bar(0), "steps is 0"),
        (lambda: schedules.cosine_alphas_bar(0), "steps is 0"),
        (lambda: schedules.ddpm_sigmas(bars, 0), "steps is 0; it must be a whole number from 1 to 10"),
        (lambda: schedules.ddpm_sigmas(bars, 11), "steps is 11; it must be a whole number from 1 to 10"),
        (lambda: schedules.edm_sigmas(5, 2, 1), "choose 0 < min < max"),
        (lambda: schedules.edm_sigmas(5, rho=0), "rho > 0"),
        (lambda: schedules.linear_alphas_bar(first=0.5, last=0.1), "betas from 0.5 to 0.1"),
        (lambda: schedules.flow_times(5, shift=0), "shift 0"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
