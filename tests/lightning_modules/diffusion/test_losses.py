"""The losses of EDM, flows, DDPM and consistency tuning, where their values are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.diffusion.consistency import ECT
from lightning_modules.diffusion.ddpm import DDPM
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.flow import Flow
from lightning_modules.samplers.schedules import beside
from lightning_modules.samplers.wrappers import Prediction
from tests.lightning_modules.diffusion.families import knowing

COUNT = 512


def gaussian_batch(spread: float = 0.5) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"image": spread * torch.randn(COUNT, 1, 16, 16), "index": torch.arange(COUNT)}


def test_the_loss_of_a_network_that_predicts_nothing_is_one() -> None:
    module = knowing(EDM, lambda x, noise, labels: torch.zeros_like(x))
    assert module.losses(gaussian_batch())["loss"].item() == pytest.approx(1, abs=0.02)
    # At every noise level.
    for sigma in (0.01, 0.3, 2.0, 50.0):
        batch = gaussian_batch()["image"]
        losses = module._losses(batch, None, torch.full((COUNT,), sigma), torch.randn_like(batch))
        assert losses["loss"].item() == pytest.approx(1, abs=0.02)
    held_out = module.held_out_losses(gaussian_batch())["loss"]
    assert held_out.item() == pytest.approx(1, abs=0.02)
    assert torch.equal(held_out, module.held_out_losses(gaussian_batch())["loss"])


def test_noise_levels_are_log_normal() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        seen.append(noise)
        return torch.zeros_like(x)

    module = knowing(EDM, network, P_mean=-0.4, P_std=1.0, resolution=16)
    for number in range(8):
        module._now.updates = number
        module.losses({"image": torch.zeros(COUNT, 1, 16, 16)})
    logarithms = 4 * torch.cat(seen)
    assert logarithms.mean().item() == pytest.approx(-0.4, abs=0.06)
    assert logarithms.std().item() == pytest.approx(1.0, abs=0.06)


def test_the_best_velocity_of_gaussian_data_has_the_loss_that_remains() -> None:
    spread = 0.5

    # z = (1 - t) x0 + t e is Gaussian with e - x0: its mean given z is linear in z.
    def velocity(z: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        t = beside(times / 1000, z)
        return (t - (1 - t) * spread**2) / ((1 - t) ** 2 * spread**2 + t**2) * z

    module, batch = knowing(Flow, velocity), gaussian_batch(spread)
    t = torch.full((COUNT,), 0.3)
    losses = module._losses(batch["image"], None, t, torch.randn(COUNT, 1, 16, 16))
    # Var(e - x0) - Cov(e - x0, z)^2 / Var(z).
    remains = 1 + spread**2 - (0.3 - 0.7 * spread**2) ** 2 / (0.49 * spread**2 + 0.09)
    assert losses["loss"].item() == pytest.approx(remains, rel=0.02)
    # And it takes noise to data of that spread.
    module.sample_with({"steps": 60})
    noise = module.noise(torch.arange(64), seed=0)
    made = module.sampler(module.denoiser(None), noise(0), module.sigmas(60), path=module.path)
    assert made.std().item() == pytest.approx(spread, rel=0.01)
    torch.testing.assert_close(made, spread * noise(0).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_what_is_predicted_changes_no_weighted_loss_of_the_picture(gamma: float | None) -> None:
    """One guess of x0, told as e, as v and as x0: with min-SNR all three have the same loss."""
    found: dict[str, list[float]] = {}
    for prediction in ("epsilon", "v", "data"):
        module = knowing(DDPM, lambda *_: torch.zeros(()), prediction=prediction, min_snr_gamma=gamma)
        alphas = module.table.float()

        def network(
            z: Tensor, times: Tensor, labels: Tensor | None, alphas: Tensor = alphas, kind: Prediction = prediction
        ) -> Tensor:
            alpha = beside(alphas[times.round().long()], z)
            guess = 0.3 * z
            noise = (z - alpha.sqrt() * guess) / (1 - alpha).sqrt()
            return {"epsilon": noise, "data": guess, "v": alpha.sqrt() * noise - (1 - alpha).sqrt() * guess}[kind]

        module.network.function = network
        images = gaussian_batch()["image"]
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
        times = torch.tensor([10, 300, 900]).repeat(COUNT)[:COUNT]
        errors = [
            module._losses(images[chosen], None, times[chosen], noise[chosen])["loss"].item()
            for chosen in (times == time for time in (10, 300, 900))
        ]
        found[prediction] = errors
    if gamma is None:
        # The errors' own sizes: one of e is SNR times one of x0, one of v SNR + 1 times.
        snr = (alphas / (1 - alphas))[[10, 300, 900]].tolist()
        assert found["epsilon"] == pytest.approx([e * s for e, s in zip(found["data"], snr, strict=True)], rel=1e-3)
        assert found["v"] == pytest.approx([e * (s + 1) for e, s in zip(found["data"], snr, strict=True)], rel=1e-3)
    else:
        assert found["epsilon"] == pytest.approx(found["data"], rel=1e-3)
        assert found["v"] == pytest.approx(found["data"], rel=1e-3)


# ---- consistency -----------------------------------------------------------------------------------------------------


def oracle(module: ECT, spread: float) -> None:
    """The network with which D is the consistency function x s / sqrt(s^2 + sigma^2) of N(0, s^2)."""
    c = module.precondition

    def network(x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        sigma = (4 * noise).exp()
        state = x / beside(c.c_in(sigma), x)
        wanted = state * spread / beside((spread**2 + sigma**2).sqrt(), x)
        return (wanted - beside(c.c_skip(sigma), x) * state) / beside(c.c_out(sigma), x)

    module.network.function = network


def test_the_lower_level_comes_closer_from_stage_to_stage() -> None:
    module = knowing(ECT, lambda *_: torch.zeros(()), stage_kimg=1.0)
    t = torch.tensor([0.01, 0.5, 80.0])
    module.images_seen = 999
    # 1 - (1 + 8 sigmoid(-t)) / 2, 0 at the earliest.
    assert module.lower(t).tolist() == pytest.approx([0.0, 0.0, 40.0], rel=1e-4)
    module.images_seen = 5000
    wanted = t * (1 - 2.0**-6 * (1 + 8 / (1 + t.exp())))
    torch.testing.assert_close(module.lower(t), wanted)
    assert (module.stage, bool((module.lower(t) < t).all())) == (5, True)


def test_at_zero_the_target_is_the_picture_itself_and_no_gradient_is_infinite() -> None:
    module = knowing(ECT, lambda x, noise, labels: torch.zeros_like(x))
    images = gaussian_batch()["image"][:4]
    t = torch.tensor([0.003, 0.01, 0.1, 1.0])
    noise = torch.randn_like(images)
    losses = module._losses(images, None, t, noise)
    x = images + beside(t, images) * noise
    away = (beside(module.precondition.c_skip(t), x) * x - images).flatten(1).norm(dim=1)
    assert torch.equal(module.lower(t), torch.zeros(4))
    assert losses["loss"].item() == pytest.approx((away / t).mean().item(), rel=1e-4)
    # Where both agree, the root's slope would be infinite.
    exact = torch.zeros(4, 1, 16, 16, requires_grad=True)
    squares = (exact - 0).square().flatten(1).sum(1)
    (squares + 0.0).clamp(min=1e-12).sqrt().sum().backward()
    assert exact.grad is not None
    assert exact.grad.isfinite().all()


def test_the_mean_gradient_at_the_consistency_function_vanishes_as_the_levels_meet() -> None:
    """Of E[D(x_t) - D(x_r) | x_t], which the gradient of the squared distance is made of: O((t - r)^2)."""
    spread, t = 0.5, 0.7
    means = []
    for gap in (0.1, 0.05, 0.025):
        r = t - gap
        # x_r given x_t = 1: N with mean (s^2 + r t) / (s^2 + t^2).
        ahead = spread / (spread**2 + t**2) ** 0.5
        below = spread / (spread**2 + r**2) ** 0.5 * (spread**2 + r * t) / (spread**2 + t**2)
        means.append(abs(ahead - below))
    assert [means[0] / means[1], means[1] / means[2]] == pytest.approx([4, 4], rel=0.2)
    # The family's own numbers agree with that: a regression of the distance on x_t.
    module = knowing(ECT, lambda *_: torch.zeros(()))
    assert isinstance(module, ECT)
    oracle(module, spread)
    images, noise = spread * torch.randn(4000, 1, 16, 16), torch.randn(4000, 1, 16, 16)
    levels = torch.full((4000,), t)
    x = images + t * noise
    (above, _), (below_, _) = (
        module._denoised(images + level * noise, torch.full_like(levels, level), None) for level in (t, 0.6)
    )
    slope = ((above - below_) * x).mean() / x.square().mean()
    assert slope.item() == pytest.approx(means[0], abs=3e-4)


def test_one_and_two_evaluations_of_the_consistency_function_make_the_data() -> None:
    module = knowing(ECT, lambda *_: torch.zeros(()))
    assert isinstance(module, ECT)
    oracle(module, 0.4)
    assert module.sigmas(2).tolist() == pytest.approx([80.0, 0.821, 0.0])
    assert module.sigmas(1).tolist() == [80.0, 0.0]
    for steps in (1, 2, 4):
        module.sample_with({"steps": steps})
        assert module.sampled()["evaluations"] == steps
        made = module.generate(torch.arange(64), seed=0)
        assert made.clamp(-1, 1).std().item() == pytest.approx(0.4, rel=0.03)
