from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_modules.samplers.deterministic import euler, heun
from lightning_modules.samplers.schedules import FLOW, VE, Path, ddpm_sigmas, edm_sigmas, linear_alphas_bar
from lightning_modules.samplers.stochastic import counted_noise, ddpm, edm_stochastic
from tests.diffusions import Function, gaussian_denoiser, mixture_denoiser, standard_normal

SPREAD, MEAN = 0.5, 0.25


def no_noise(draw: int) -> Tensor:
    raise AssertionError(f"draw {draw} was not to be made")


def ddpm_variance(sigmas: Tensor, *, eta: float = 1.0) -> float:
    """What ancestral sampling makes of data N(., SPREAD^2): each step is linear, so variances follow a recursion."""
    variance = sigmas[0].item() ** 2 + SPREAD**2
    for s, t in itertools.pairwise(sigmas.tolist()):
        kept = SPREAD**2 / (SPREAD**2 + s**2)
        added = eta**2 * t**2 * (s**2 - t**2) / s**2
        variance = (kept + math.sqrt(t**2 - added) / s * (1 - kept)) ** 2 * variance + added
    return variance


def edm_variance(sigmas: Tensor, *, churn: float, low: float, high: float, scale: float) -> float:
    """The same of EDM's stochastic sampler."""
    variance = sigmas[0].item() ** 2 + SPREAD**2
    for s, t in itertools.pairwise(sigmas.tolist()):
        raised = s * (1 + (min(churn / (len(sigmas) - 1), math.sqrt(2) - 1) if low <= s <= high else 0))
        variance += (raised**2 - s**2) * scale**2
        slope, ahead = (level / (SPREAD**2 + level**2) for level in (raised, t))
        factor = 1 + (t - raised) * slope
        if t > 0:
            factor = 1 + (t - raised) * (slope + ahead * factor) / 2
        variance *= factor**2
    return variance


IMAGENET = {"churn": 40.0, "low": 0.05, "high": 50.0, "scale": 1.003}
EVERYWHERE = {"churn": 60.0, "low": 0.0, "high": math.inf, "scale": 1.0}


@pytest.mark.parametrize(
    ("sampler", "sigmas", "expected"),
    [
        (edm_stochastic, edm_sigmas(40), edm_variance(edm_sigmas(40), **IMAGENET)),
        (
            functools.partial(edm_stochastic, churn=60, noise_scale=1.0, churn_min=0.0, churn_max=math.inf),
            edm_sigmas(300),
            edm_variance(edm_sigmas(300), **EVERYWHERE),
        ),
        (ddpm, edm_sigmas(50), ddpm_variance(edm_sigmas(50))),
        (ddpm, edm_sigmas(500), ddpm_variance(edm_sigmas(500))),
        (functools.partial(ddpm, eta=0.5), edm_sigmas(50), ddpm_variance(edm_sigmas(50), eta=0.5)),
    ],
    ids=["edm-40", "edm-everywhere-300", "ddpm-50", "ddpm-500", "half-50"],
)
def test_mean_and_variance_of_a_gaussian(sampler: Function, sigmas: Tensor, expected: float) -> None:
    """Within four standard errors of what the recursion gives for this many steps."""
    count = 20_000
    like = torch.empty(count // 4, 4)
    noise = counted_noise(5, like)  # draw 0 is no sampler's
    x = MEAN + math.sqrt(80**2 + SPREAD**2) * noise(0).double()
    x = sampler(gaussian_denoiser(SPREAD, MEAN), x, sigmas, noise=noise)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * SPREAD / math.sqrt(count))
    assert x.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / count))


def test_the_datas_variance_is_the_limit() -> None:
    for steps, error in ((300, 0.06), (3000, 0.006)):
        sigmas = edm_sigmas(steps)
        for variance in (ddpm_variance(sigmas), ddpm_variance(sigmas, eta=0.5), edm_variance(sigmas, **EVERYWHERE)):
            assert variance == pytest.approx(SPREAD**2, rel=error)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_without_churn_it_is_heun(path: Path) -> None:
    x, sigmas = 80 * standard_normal(8, 2), edm_sigmas(18)
    expected = heun(mixture_denoiser, x, sigmas, path=path)
    assert torch.equal(edm_stochastic(mixture_denoiser, x, sigmas, noise=no_noise, churn=0, path=path), expected)
    outside = edm_stochastic(mixture_denoiser, x, sigmas, noise=no_noise, churn_min=100, churn_max=200, path=path)
    assert torch.equal(outside, expected)


def test_ddpm_without_noise_is_ddim() -> None:
    x, sigmas = 80 * standard_normal(8, 2), edm_sigmas(18)
    assert torch.equal(ddpm(mixture_denoiser, x, sigmas, noise=no_noise, eta=0), euler(mixture_denoiser, x, sigmas))


def test_edm_algorithm_2_line_by_line() -> None:
    x, sigmas = 80 * standard_normal(8, 2), edm_sigmas(12)
    noise = counted_noise(3, x)
    expected = x
    for i, (sigma, target) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        gamma = min(30 / 12, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0
        high = sigma + gamma * sigma
        raised = expected + math.sqrt(high**2 - sigma**2) * 1.007 * noise(i + 1).double()
        d = (raised - mixture_denoiser(raised, torch.full((8,), high, dtype=torch.float64))) / high
        expected = raised + (target - high) * d
        if target > 0:
            ahead = (expected - mixture_denoiser(expected, torch.full((8,), target, dtype=torch.float64))) / target
            expected = raised + (target - high) * (d + ahead) / 2
    found = edm_stochastic(mixture_denoiser, x, sigmas, noise=noise, churn=30, noise_scale=1.007)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_ddpm_as_its_paper_writes_it() -> None:
    """Algorithm 2 with sigma_t^2 = beta_tilde, in the variance-preserving parametrisation."""
    bars = linear_alphas_bar(50, 1e-3, 0.3)
    z = standard_normal(8, 2)
    noise = counted_noise(3, z)
    found = ddpm(mixture_denoiser, z / bars[-1].sqrt(), ddpm_sigmas(bars, 50), noise=noise)
    for draw, t in enumerate(range(49, -1, -1)):
        bar, before = bars[t], bars[t - 1] if t else torch.ones((), dtype=torch.float64)
        alpha, beta = bar / before, 1 - bar / before
        x0 = mixture_denoiser(z / bar.sqrt(), ((1 - bar) / bar).sqrt().expand(8))
        epsilon = (z - bar.sqrt() * x0) / (1 - bar).sqrt()
        z = (z - beta / (1 - bar).sqrt() * epsilon) / alpha.sqrt()
        if t:
            z = z + ((1 - before) / (1 - bar) * beta).sqrt() * noise(draw + 1).double()
    torch.testing.assert_close(found, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [edm_stochastic, ddpm])
def test_pictures_do_not_depend_on_the_batch(sampler: Function) -> None:
    x, sigmas = 80 * standard_normal(6, 2), edm_sigmas(9)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = sampler(mixture_denoiser, x, sigmas, noise=counted_noise(7, x))
    parts = [
        sampler(mixture_denoiser, x[a:b], sigmas, noise=counted_noise(7, x[a:b], torch.arange(a, b)))
        for a, b in ((0, 2), (2, 6))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), before)
    other = sampler(mixture_denoiser, x, sigmas, noise=counted_noise(8, x))
    assert not torch.allclose(other, whole, atol=1e-3)
    noise = counted_noise(7, x)
    for numbers in ([2, 3, 4], [1, 3, 5], [5], [4, 2, 0], [5, 0, 1], [3, 3], []):
        assert torch.equal(counted_noise(7, x[numbers], torch.tensor(numbers))(4), noise(4)[numbers])
    assert not torch.equal(noise(4), noise(5))


def test_bad_input_is_refused_in_a_line() -> None:
    x, sigmas = standard_normal(2, 2), edm_sigmas(3)
    with pytest.raises(ValueError, match=r"^eta 1.5: choose[^\n]*$"):
        ddpm(mixture_denoiser, x, sigmas, noise=no_noise, eta=1.5)
    with pytest.raises(ValueError, match=r"^churn -1: choose[^\n]*$"):
        edm_stochastic(mixture_denoiser, x, sigmas, noise=no_noise, churn=-1)
    with pytest.raises(ValueError, match=r"^the index has 3 numbers for a batch of 2 pictures$"):
        counted_noise(1, x, torch.arange(3))
    for sampler in (ddpm, edm_stochastic):
        with pytest.raises(ValueError, match=r"^sigmas must fall[^\n]*$"):
            sampler(mixture_denoiser, x, torch.tensor([1.0, 2.0]), noise=no_noise)
