"""EDM's preconditioning: what makes inputs, targets and losses of one size at every noise level."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.samplers.preconditioning import Preconditioning
from lightning_modules.samplers.schedules import beside
from lightning_modules.samplers.wrappers import edm_denoiser
from tests.diffusions import gaussian_denoiser, standard_normal

SIGMAS = torch.tensor([0.002, 0.05, 0.5, 3.0, 80.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_inputs_and_targets_have_variance_one(sigma_data: float) -> None:
    c, count = Preconditioning(sigma_data), 200_000
    data, noise = sigma_data * standard_normal(count), standard_normal(count, seed=1)
    for sigma in SIGMAS:
        x = data + sigma * noise
        assert (c.c_in(sigma) * x).var().item() == pytest.approx(1, abs=0.02)
        # What the network is to answer: D = data for F = (data - c_skip x) / c_out.
        target = (data - c.c_skip(sigma) * x) / c.c_out(sigma)
        assert target.var().item() == pytest.approx(1, abs=0.02)
        assert c.weight(sigma).item() == pytest.approx(1 / c.c_out(sigma).item() ** 2)


def test_a_network_that_predicts_nothing_is_the_best_linear_denoiser() -> None:
    # Of data N(0, sigma_data^2), E[x0 | x] = c_skip x.
    denoiser = edm_denoiser(lambda x, noise: torch.zeros_like(x), Preconditioning(0.5))
    x = standard_normal(len(SIGMAS), 3)
    torch.testing.assert_close(denoiser(x, SIGMAS), gaussian_denoiser(0.5)(x, SIGMAS))


def test_a_network_sees_scaled_inputs_and_a_quarter_of_the_logarithm() -> None:
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen.extend([x, noise])
        return torch.ones_like(x)

    x, c = standard_normal(len(SIGMAS), 2), Preconditioning(0.5)
    answer = edm_denoiser(network, c, dtype=torch.float32)(x, SIGMAS)
    assert seen[0].dtype == seen[1].dtype == torch.float32
    torch.testing.assert_close(seen[0], (x / (SIGMAS[:, None] ** 2 + 0.25).sqrt()).float())
    torch.testing.assert_close(seen[1], (SIGMAS.log() / 4).float())
    assert torch.equal(Preconditioning(0.5, noise_scale=100.0).c_noise(SIGMAS), 100 * c.c_noise(SIGMAS))
    torch.testing.assert_close(answer, beside(c.c_skip(SIGMAS), x) * x + beside(c.c_out(SIGMAS), x))
