"""The variational objective against torch.distributions and float64 closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Laplace, Normal, kl_divergence

from lightning_modules.losses.variational import Reconstruction, drawn_latents, gaussian_kl, reconstruction_loss


def test_latents_are_drawn_out_of_their_posterior() -> None:
    moments = torch.tensor([3.0, -1.0, 0.5, 2.0]).view(1, 4, 1, 1).expand(20_000, 4, 1, 1)
    drawn = drawn_latents(moments, torch.randn(20_000, 2, 1, 1, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn.mean(0).flatten(), torch.tensor([3.0, -1.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0).flatten(), torch.tensor([0.5, 2.0]), atol=0.05, rtol=0)
    assert torch.equal(drawn_latents(moments, torch.zeros(20_000, 2, 1, 1)), moments[:, :2])


def test_kl_is_the_divergence_from_the_standard_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = 2 * torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected.float())


def test_kl_near_the_prior_does_not_cancel() -> None:
    # exp(x) - 1 - x = x^2 / 2 + x^3 / 6 + ..., of which float32 would leave nothing if 1 were subtracted last.
    for x in (-3e-3, -2e-4, 1e-4, 5e-4):
        kl = gaussian_kl(torch.zeros(1, 1), torch.full((1, 1), x)).item()
        assert kl == pytest.approx(x**2 / 4 + x**3 / 12, rel=2e-3)
    assert gaussian_kl(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == [0.0] * 3


def images(seed: int) -> Tensor:
    return torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(
    ("name", "constant"), [("mse", 0.5 * math.log(2 * math.pi)), ("l1", math.log(2.0)), ("bernoulli", 0.0)]
)
def test_reconstruction_is_a_negative_log_likelihood(name: Reconstruction, constant: float) -> None:
    decoded, target = images(0), images(1)
    likelihood: Distribution
    match name:
        case "mse":
            likelihood, value = Normal(decoded, 1.0), target
        case "l1":
            likelihood, value = Laplace(decoded, 1.0), target
        case "bernoulli":
            target = target.sign()
            likelihood, value = Bernoulli((decoded + 1) / 2), (target + 1) / 2
    expected = -(likelihood.log_prob(value) + constant).sum() / 4
    loss = reconstruction_loss(name, decoded, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bernoulli_of_grey_is_the_cross_entropy() -> None:
    decoded, target = images(0), images(1)
    expected = torch.nn.functional.binary_cross_entropy((decoded + 1) / 2, (target + 1) / 2, reduction="sum") / 4
    assert reconstruction_loss("bernoulli", decoded, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_bernoulli_of_saturated_pixels_stays_finite() -> None:
    decoded = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(1, 1, 2, 2).requires_grad_()
    target = torch.tensor([1.0, -1.0, -1.0, 1.0]).view(1, 1, 2, 2)
    loss = reconstruction_loss("bernoulli", decoded, target)
    loss.backward()
    assert decoded.grad is not None
    assert decoded.grad.isfinite().all()
    assert 2 * math.log(2**20) < loss.item() < 200


@pytest.mark.parametrize("name", ["mse", "l1", "bernoulli"])
def test_sums_that_overflow_half_precision_are_float32(name: Reconstruction) -> None:
    decoded = torch.full((1, 3, 256, 256), 0.9, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = reconstruction_loss(name, decoded, -decoded)
        kl = gaussian_kl(torch.full((2, 64), 200.0, dtype=torch.float16), torch.zeros(2, 64, dtype=torch.float16))
    assert loss.item() > 65504
    assert loss.isfinite()
    assert kl.tolist() == [64 * 200.0**2 / 2] * 2


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'l2' is unknown; choose one of mse, l1, bernoulli"):
        reconstruction_loss("l2", images(0), images(1))  # type: ignore[arg-type]
