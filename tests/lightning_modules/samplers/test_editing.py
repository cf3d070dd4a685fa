from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_modules.samplers.deterministic import euler, heun
from lightning_modules.samplers.editing import inpaint, invert, sdedit, slerp
from lightning_modules.samplers.schedules import edm_sigmas
from lightning_modules.samplers.stochastic import counted_noise, ddpm
from tests.diffusions import counted, gaussian_denoiser, mixture_denoiser, standard_normal


def pictures() -> Tensor:
    return standard_normal(4, 3, 8, 8).clamp(-1, 1).float()


def mask() -> Tensor:
    known = torch.ones(4, 1, 8, 8, dtype=torch.bool)
    known[:, :, 2:6, 3:7] = False
    return known


@pytest.mark.parametrize("options", [{}, {"resamples": 3}, {"resamples": 2, "jump": 4}, {"eta": 0.0}])
def test_the_known_region_comes_back_to_the_bit(options: dict[str, float]) -> None:
    given = pictures()
    filled = inpaint(
        gaussian_denoiser(0.5), given, mask(), edm_sigmas(10), noise=counted_noise(1, given), **options
    ).float()
    known = mask().expand_as(given)
    assert torch.equal(filled[known], given[known])
    assert not torch.isclose(filled[~known], given[~known]).any()
    assert filled.isfinite().all()


def test_what_is_unknown_does_not_matter() -> None:
    given = pictures()
    blank = torch.where(mask(), given, math.nan)
    fill = functools.partial(inpaint, gaussian_denoiser(0.5), noise=counted_noise(1, given), resamples=2)
    assert torch.equal(fill(given, mask(), edm_sigmas(6)), fill(blank, mask(), edm_sigmas(6)))


def test_nothing_known_is_ancestral_sampling() -> None:
    x = standard_normal(8, 2)
    noise = counted_noise(2, x)
    nothing, sigmas = torch.zeros(8, 2, dtype=torch.bool), edm_sigmas(7)
    found = inpaint(mixture_denoiser, x, nothing, sigmas, noise=noise)
    expected = ddpm(mixture_denoiser, 80 * noise(0).double(), sigmas, noise=lambda draw: noise(2 * draw - 1))
    assert torch.equal(found, expected)


def test_resampling_brings_the_unknown_in_harmony() -> None:
    """Two correlated numbers, the first known: the second's mean must be rho times it. Replacement alone is biased."""
    rho, value, count = 0.9, 1.5, 1000
    covariance = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0].item() ** 2
        return x @ torch.linalg.solve(covariance + level * torch.eye(2, dtype=torch.float64), covariance)

    given = torch.tensor([[value, 0.0]]).expand(count, 2)
    known = torch.tensor([True, False]).expand(count, 2)
    fill = functools.partial(inpaint, denoise, given, known, edm_sigmas(30), noise=counted_noise(3, given))
    plain, resampled = (abs(fill(resamples=r)[:, 1].mean().item() - rho * value) for r in (1, 10))
    assert resampled < 0.1
    assert resampled < plain / 3


def test_evaluations_of_resampling() -> None:
    """Stretches of 4, 4 and 2 steps, each gone down three times."""
    levels: list[float] = []
    x = standard_normal(4, 2)
    options = {"resamples": 3, "jump": 4}
    sigmas = edm_sigmas(10)
    denoiser = counted(mixture_denoiser, levels)
    inpaint(denoiser, x, x > 0, sigmas, noise=counted_noise(1, x), **options)
    every = sigmas.tolist()
    assert levels == 3 * every[:4] + 3 * every[4:8] + 3 * every[8:10]


def test_sdedit() -> None:
    given = pictures()
    noise, sigmas, denoiser = counted_noise(4, given), edm_sigmas(10), gaussian_denoiser(0.5)
    edit = functools.partial(sdedit, denoiser, given, sigmas=sigmas, noise=noise)
    assert torch.equal(edit(0.0), given.double())
    # By hand: the last 4 of 10 steps.
    expected = heun(denoiser, given.double() + sigmas[6] * noise(0).double(), sigmas[6:])
    torch.testing.assert_close(edit(0.4, solver=heun), expected)
    distances = [(edit(strength) - given).square().mean().item() for strength in (0.1, 0.4, 0.7, 1.0)]
    assert distances == sorted(distances)
    stochastic = functools.partial(ddpm, noise=noise)
    expected = stochastic(denoiser, given.double() + sigmas[6] * noise(0).double(), sigmas[6:])
    torch.testing.assert_close(edit(0.4, solver=stochastic), expected)
    levels: list[float] = []
    sdedit(counted(denoiser, levels), given, 0.01, sigmas, noise=noise)
    assert levels == [0.002]


def test_inversion_and_back() -> None:
    """Explicit inversion errs by order 1; with fixed-point iterations it is exact."""
    x = mixture_denoiser(standard_normal(16, 2), torch.full((16,), 0.5, dtype=torch.float64))
    errors = []
    for steps in (40, 80, 160):
        sigmas = edm_sigmas(steps, 0.05, 20)[:-1]
        errors.append((euler(mixture_denoiser, invert(mixture_denoiser, x, sigmas), sigmas) - x).abs().max().item())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.25)
    sigmas = edm_sigmas(50, 0.05, 20)[:-1]
    noise = invert(mixture_denoiser, x, sigmas, iterations=25)
    torch.testing.assert_close(euler(mixture_denoiser, noise, sigmas), x, rtol=1e-9, atol=1e-9)
    # A 0 at the end is left out.
    ended = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])
    assert torch.equal(invert(mixture_denoiser, x, ended, iterations=25), noise)


def test_slerp_keeps_the_circle() -> None:
    start, end = standard_normal(3, 16).float(), standard_normal(3, 16, seed=1).float()
    start, end = start / start.norm(dim=1, keepdim=True), end / end.norm(dim=1, keepdim=True)
    path = slerp(start, end, torch.linspace(0, 1, 9))
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(path.norm(dim=2), torch.ones(3, 9))
    angles = (path[:, 1:] * path[:, :-1]).sum(2).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, angles[:, :1].expand_as(angles), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(slerp(start, start, torch.tensor([0.5]))[:, 0], start)


def test_slerp_of_pictures_is_that_of_all_their_numbers() -> None:
    start, end = standard_normal(3, 2, 4, 4), standard_normal(3, 2, 4, 4, seed=1)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    path = slerp(start, end, t)
    assert path.shape == (3, 5, 2, 4, 4)
    torch.testing.assert_close(path.flatten(2), slerp(start.flatten(1), end.flatten(1), t))


def test_bad_input_is_refused_in_a_line() -> None:
    given, sigmas = pictures(), edm_sigmas(4)
    noise, denoiser = counted_noise(1, given), gaussian_denoiser(1.0)
    fill = functools.partial(inpaint, denoiser, given, noise=noise)
    for call, message in [
        (lambda: fill(mask().float(), sigmas), "the mask is torch.float32; it must be bool"),
        (lambda: fill(mask()[:, :, :5], sigmas), r"a mask of shape \[4, 1, 5, 8\] does not fit"),
        (lambda: fill(mask()[None], sigmas), r"a mask of shape \[1, 4, 1, 8, 8\] does not fit"),
        (lambda: fill(mask(), sigmas[:-1]), "needs them to end at 0"),
        (lambda: fill(mask(), sigmas, resamples=0), "resamples is 0"),
        (lambda: fill(mask(), sigmas, jump=0), "jump is 0"),
        (lambda: fill(mask(), sigmas, eta=2), "eta 2"),
        (lambda: sdedit(denoiser, given, 1.5, sigmas, noise=noise), "strength 1.5: choose 0"),
        (lambda: invert(denoiser, given, sigmas, iterations=-1), "iterations is -1"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
