from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_modules.samplers.deterministic import euler
from lightning_modules.samplers.schedules import (
    cosine_alphas_bar,
    ddpm_sigmas,
    edm_sigmas,
    flow_sigmas,
    linear_alphas_bar,
    sigma_of_alpha_bar,
)
from lightning_modules.samplers.stepping import Denoiser
from lightning_modules.samplers.wrappers import Prediction, discrete_denoiser, discrete_times, flow_denoiser
from tests.diffusions import gaussian_denoiser, standard_normal

SPREAD = 0.5


def discrete_network(alphas_bar: Tensor, prediction: str, times_seen: list[Tensor]) -> Denoiser:
    """The exact prediction for N(0, SPREAD^2) out of z and a discrete time, by the closed form E[x0 | z]."""

    def network(z: Tensor, times: Tensor) -> Tensor:
        times_seen.append(times)
        bar = alphas_bar[times.round().long()].view(-1, 1, 1, 1).to(z.dtype)
        x0 = bar.sqrt() * SPREAD**2 / (bar * SPREAD**2 + 1 - bar) * z
        epsilon = (z - bar.sqrt() * x0) / (1 - bar).sqrt()
        return {"data": x0, "epsilon": epsilon, "v": bar.sqrt() * epsilon - (1 - bar).sqrt() * x0}[prediction]

    return network


@pytest.mark.parametrize("prediction", ["epsilon", "v", "data"])
@pytest.mark.parametrize("alphas_bar", [linear_alphas_bar(), cosine_alphas_bar()], ids=["linear", "cosine"])
@pytest.mark.parametrize("rounded", [False, True])
def test_discrete_networks_are_the_same_denoiser(prediction: Prediction, alphas_bar: Tensor, rounded: bool) -> None:
    seen: list[Tensor] = []
    network = discrete_network(alphas_bar, prediction, seen)
    denoiser = discrete_denoiser(network, alphas_bar, prediction, rounded=rounded, dtype=torch.float64)
    times = torch.tensor([0, 1, 17, 500, 998])
    sigma = sigma_of_alpha_bar(alphas_bar[times])
    x = (SPREAD**2 + sigma**2).sqrt().view(5, 1, 1, 1) * standard_normal(5, 3, 4, 4)
    torch.testing.assert_close(denoiser(x, sigma), gaussian_denoiser(SPREAD)(x, sigma), rtol=1e-8, atol=1e-8)
    assert seen[0].dtype == (torch.int64 if rounded else torch.float64)
    torch.testing.assert_close(seen[0].double(), times.double(), rtol=0, atol=1e-7)


def test_times_between_and_beyond() -> None:
    table = sigma_of_alpha_bar(linear_alphas_bar()).log()
    between = torch.stack([(table[3] + table[4]) / 2, table[0] - 1, table[-1] + 1]).exp()
    assert discrete_times(between, table).tolist() == pytest.approx([3.5, 0, 999], abs=1e-9)
    assert discrete_times(torch.zeros(1), table).tolist() == [0]


@pytest.mark.parametrize("data_at_one", [False, True])
def test_a_velocity_network_in_either_direction_of_time(data_at_one: bool) -> None:
    def network(z: Tensor, times: Tensor) -> Tensor:
        t = (times / 1000).view(-1, 1, 1, 1)
        t = 1 - t if data_at_one else t
        x0 = (1 - t) * SPREAD**2 / ((1 - t) ** 2 * SPREAD**2 + t**2) * z
        velocity = (z - x0) / t  # e - x0, out of z = (1 - t) x0 + t e
        return -velocity if data_at_one else velocity

    denoiser = flow_denoiser(network, data_at_one=data_at_one, time_scale=1000, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.3, 1, 20, 1e6], dtype=torch.float64)
    x = (SPREAD**2 + sigma**2).sqrt().view(5, 1, 1, 1) * standard_normal(5, 3, 4, 4)
    torch.testing.assert_close(denoiser(x, sigma), gaussian_denoiser(SPREAD)(x, sigma), rtol=1e-6, atol=1e-9)


def test_euler_of_a_flow_is_euler_in_its_time() -> None:
    """From pure noise, z' = z + (t' - t) v(z, t): also what a network of float32 sees is as if sampled so."""
    weight = standard_normal(6, 6).float() / 3

    def network(z: Tensor, times: Tensor) -> Tensor:
        assert z.dtype == times.dtype == torch.float32
        return torch.tanh(z @ weight) + times[:, None]

    noise, sigmas = standard_normal(16, 6), flow_sigmas(10)
    found = euler(flow_denoiser(network), sigmas[0] * noise, sigmas)
    z, times = noise.clone(), torch.linspace(1, 0, 11)
    for t, later in itertools.pairwise(times):
        z = z + (later - t) * network(z.float(), t.expand(16))
    torch.testing.assert_close(found, z, rtol=1e-5, atol=1e-5)


def test_a_discrete_model_is_sampled_at_its_own_times() -> None:
    alphas_bar = linear_alphas_bar()
    seen: list[Tensor] = []
    denoiser = discrete_denoiser(discrete_network(alphas_bar, "epsilon", seen), alphas_bar, rounded=True)
    sigmas = ddpm_sigmas(alphas_bar, 10)
    x = euler(denoiser, sigmas[0] * standard_normal(2, 3, 4, 4), sigmas)
    assert [times[0].item() for times in seen] == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert x.isfinite().all()
    closed = euler(gaussian_denoiser(SPREAD), sigmas[0] * standard_normal(2, 3, 4, 4), sigmas)
    torch.testing.assert_close(x, closed, rtol=1e-3, atol=1e-3)


def test_an_unknown_prediction_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^prediction is 'score'; it must be one of epsilon, v, data$"):
        discrete_denoiser(lambda z, t: z, linear_alphas_bar(), "score")  # type: ignore[arg-type]


def test_levels_of_another_schedule() -> None:
    """EDM's levels through a network of DDPM's: nearly the closed flow, though they lie between its own."""
    alphas_bar = linear_alphas_bar()
    denoiser = discrete_denoiser(discrete_network(alphas_bar, "v", []), alphas_bar, "v", dtype=torch.float64)
    sigmas = edm_sigmas(200, 0.02, 80)
    x = 80 * standard_normal(4, 3, 2, 2)
    expected = x * SPREAD / math.sqrt(SPREAD**2 + 80**2)
    torch.testing.assert_close(euler(denoiser, x, sigmas), expected, rtol=0.05, atol=0)
