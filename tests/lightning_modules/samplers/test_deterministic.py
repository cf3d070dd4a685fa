from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_modules.samplers.deterministic import dpmpp_2m, dpmpp_2s, euler, heun
from lightning_modules.samplers.schedules import FLOW, VP, Path, ddpm_sigmas, edm_sigmas, flow_sigmas, linear_alphas_bar
from lightning_modules.samplers.stepping import Step
from tests.diffusions import (
    Function,
    counted,
    gaussian_denoiser,
    mixture_denoiser,
    solve_finely,
    standard_normal,
)

HIGH, LOW = 20.0, 0.05


@functools.cache
def start() -> Tensor:
    return HIGH * standard_normal(12, 2)


@functools.cache
def end() -> Tensor:
    return solve_finely(mixture_denoiser, start(), HIGH, LOW)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (euler, 1),
        (heun, 2),
        (functools.partial(heun, path=VP), 2),
        (functools.partial(heun, path=FLOW), 2),
        (dpmpp_2m, 2),
        (dpmpp_2s, 2),
    ],
    ids=["euler", "heun", "heun-vp", "heun-flow", "2m", "2s"],
)
def test_order(sampler: Function, order: int) -> None:
    """On an exactly denoised mixture, against a solution to 11 digits, stopping before sigma 0."""
    errors = []
    for steps in (20, 40, 80, 160, 320, 640):
        x = sampler(mixture_denoiser, start(), edm_sigmas(steps + 1, LOW, HIGH)[:-1])
        errors.append((x - end()).square().mean().sqrt().item())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(a > b for a, b in itertools.pairwise(errors))
    assert orders[2:] == pytest.approx([order] * 3, abs=0.1)


def test_order_of_ddim_as_its_paper_writes_it() -> None:
    """In the variance-preserving parametrisation, with epsilon (eq. 12): step by step what Euler does in sigma."""
    sigmas = edm_sigmas(51, LOW, HIGH)[:-1]
    bars = 1 / (1 + sigmas**2)
    z = start() * bars[0].sqrt()
    for here, there, sigma in zip(bars[:-1], bars[1:], sigmas[:-1], strict=True):
        x0 = mixture_denoiser(z / here.sqrt(), sigma.expand(len(z)))
        epsilon = (z - here.sqrt() * x0) / (1 - here).sqrt()
        z = there.sqrt() * (z - (1 - here).sqrt() * epsilon) / here.sqrt() + (1 - there).sqrt() * epsilon
    torch.testing.assert_close(euler(mixture_denoiser, start(), sigmas) * bars[-1].sqrt(), z, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m, dpmpp_2s])
def test_closed_flow_of_a_gaussian(sampler: Function) -> None:
    """N(0, s^2): x sqrt(s^2 + b^2) / sqrt(s^2 + a^2)."""
    spread, x = 0.5, 80 * standard_normal(16, 3, 4, 4)
    sigmas = edm_sigmas(400, 0.05, 80)[:-1]
    expected = x * math.sqrt(spread**2 + 0.05**2) / math.sqrt(spread**2 + 80**2)
    torch.testing.assert_close(sampler(gaussian_denoiser(spread), x, sigmas), expected, rtol=2e-4, atol=0)
    there = sampler(gaussian_denoiser(spread), expected, sigmas.flip(0))
    torch.testing.assert_close(there, x, rtol=2e-4, atol=0)


@pytest.mark.parametrize(("sampler", "calls"), [(euler, 18), (heun, 35), (dpmpp_2m, 18), (dpmpp_2s, 35)])
def test_evaluations_of_eighteen_steps(sampler: Function, calls: int) -> None:
    levels: list[float] = []
    sampler(counted(mixture_denoiser, levels), start(), edm_sigmas(18))
    assert len(levels) == calls
    assert levels[0] == 80
    assert levels[-1] == 0.002


@pytest.mark.parametrize("path", [VP, FLOW])
def test_a_step_to_zero_gives_the_denoised_picture(path: Path) -> None:
    sigmas = torch.tensor([1.0, 0.0])
    expected = mixture_denoiser(start(), torch.ones(12, dtype=torch.float64))
    for sampler in (euler, heun, functools.partial(heun, path=path), dpmpp_2m, dpmpp_2s):
        assert torch.equal(sampler(mixture_denoiser, start(), sigmas), expected)


def test_a_flow_from_pure_noise() -> None:
    """Heun's method in the flow's own time crosses from all but infinite sigma; the result is the closed flow."""
    noise, spread = standard_normal(64, 2), 0.5
    sigmas = flow_sigmas(100)
    x = heun(gaussian_denoiser(spread), sigmas[0] * noise, sigmas, path=FLOW)
    torch.testing.assert_close(x, spread * noise, rtol=1e-3, atol=0)
    # The same by hand, in z = (1 - t) x0 + t e with the exact velocity E[e - x0 | z].
    z, times = noise.clone(), torch.linspace(1, 0, 101, dtype=torch.float64)

    def velocity(z: Tensor, t: float) -> Tensor:
        return z * (t - (1 - t) * spread**2) / ((1 - t) ** 2 * spread**2 + t**2)

    for t, later in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        first = velocity(z, t)
        second = velocity(z + (later - t) * first, later) if later > 0 else first
        z = z + (later - t) * (first + second) / 2
    torch.testing.assert_close(x, z, rtol=1e-5, atol=1e-6)


def test_the_state_is_float64_and_networks_may_answer_in_less() -> None:
    seen: list[Step] = []

    def half(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float64
        assert sigma.shape == (12,)
        return mixture_denoiser(x, sigma).bfloat16()

    x = euler(half, start().float(), edm_sigmas(5), callback=seen.append)
    assert x.dtype == torch.float64
    assert [step.index for step in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[-1].denoised, x)
    assert torch.equal(seen[0].x, start().float().double())


def test_no_graph_is_kept() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert not heun(lambda x, sigma: weight * x, start(), edm_sigmas(3)).requires_grad


@pytest.mark.parametrize(
    "sigmas", [[1.0], [1.0, 1.0], [1.0, 2.0, 0.0], [0.0, 1.0], [1.0, -1.0], [math.inf, 1.0], [math.nan, 1.0]]
)
@pytest.mark.parametrize("sampler", [euler, heun, dpmpp_2m, dpmpp_2s])
def test_bad_levels_are_refused(sampler: Function, sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^sigmas [^\n]*$"):
        sampler(mixture_denoiser, start(), torch.tensor(sigmas))


def test_ddim_through_ddpms_own_levels() -> None:
    """1000 discrete levels: DDIM's error against the closed flow is of a step's size."""
    sigmas, spread = ddpm_sigmas(linear_alphas_bar(), 1000), 0.5
    x = sigmas[0].item() * standard_normal(8, 2)
    expected = x * spread / math.sqrt(spread**2 + sigmas[0].item() ** 2)
    torch.testing.assert_close(euler(gaussian_denoiser(spread), x, sigmas), expected, rtol=0.02, atol=0)
