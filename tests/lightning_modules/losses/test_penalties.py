"""Gradient penalties against closed forms and against finite differences in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.losses.penalties import clip_weights_, gradient_penalty, r1_penalty
from lightning_modules.networks.dcgan import DCGANDiscriminator, DiscriminatorOptions


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Real images, generated ones, and alpha."""
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 6, 3, 4, 4, generator=generator)
    return real, fake, torch.rand(6, generator=generator)


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_linear_critic(images: tuple[Tensor, Tensor, Tensor], norm: float) -> None:
    real, fake, alpha = images
    weight = torch.randn(48, generator=torch.Generator().manual_seed(1))
    weight = (norm * weight / weight.norm()).requires_grad_()

    def critic(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight

    penalty = gradient_penalty(critic, real, fake, alpha)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * weight.detach() / norm, atol=1e-5, rtol=1e-4)

    penalty = r1_penalty(critic, real)
    assert penalty.item() == pytest.approx(norm**2, rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach())


def test_quadratic_critic(images: tuple[Tensor, Tensor, Tensor]) -> None:
    real, fake, alpha = images
    curvature = torch.tensor(0.7, requires_grad=True)  # D(x) = a/2 |x|^2, so that its gradient is a x

    def critic(x: Tensor) -> Tensor:
        return 0.5 * curvature * x.square().sum((1, 2, 3))

    norms = np.linalg.norm(real.numpy().reshape(6, -1).astype(np.float64), axis=1)
    penalty = r1_penalty(critic, real)
    assert penalty.item() == pytest.approx(0.49 * np.mean(norms**2), rel=1e-5)
    assert torch.autograd.grad(penalty, curvature)[0].item() == pytest.approx(1.4 * np.mean(norms**2), rel=1e-5)

    weights = alpha.double().numpy()[:, None]
    mixed = weights * real.double().numpy().reshape(6, -1) + (1 - weights) * fake.double().numpy().reshape(6, -1)
    norms = np.linalg.norm(mixed, axis=1)
    penalty = gradient_penalty(critic, real, fake, alpha)
    assert penalty.item() == pytest.approx(np.mean((0.7 * norms - 1) ** 2), rel=1e-5)
    assert torch.autograd.grad(penalty, curvature)[0].item() == pytest.approx(
        np.mean(2 * (0.7 * norms - 1) * norms), rel=1e-5
    )
    assert torch.equal(gradient_penalty(critic, real, fake, alpha.view(6, 1, 1, 1)), penalty.detach())


def reference_penalty(critic: nn.Module, images: Tensor, target: float) -> float:
    """E(‖∇D(x)‖ - target)², an image at a time, without a second differentiation."""
    norms = []
    for image in images:
        image = image[None].clone().requires_grad_()
        norms.append(torch.autograd.grad(critic(image).double().sum(), image)[0].norm())
    return (torch.stack(norms) - target).square().mean().item()


@pytest.mark.parametrize("kind", ["gradient_penalty", "r1"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_double_backward_is_the_derivative(kind: str, gradient_checkpointing: bool) -> None:
    torch.manual_seed(0)
    critic = DCGANDiscriminator(
        DiscriminatorOptions(8, 8, normalization="layer", gradient_checkpointing=gradient_checkpointing), resolution=32
    )
    for parameter in critic.parameters():
        parameter.data.mul_(3)  # at DCGAN's initial scale the gradients would nearly vanish
    nn.init.constant_(critic.get_parameter("blocks.1.attention.gamma"), 0.5)
    real, fake = torch.randn(2, 3, 3, 32, 32)
    alpha = torch.tensor([0.1, 0.5, 0.8])

    if kind == "r1":
        penalty, at, target = r1_penalty(critic, real), real, 0.0
    else:
        mix = alpha.view(-1, 1, 1, 1)
        penalty, at, target = gradient_penalty(critic, real, fake, alpha), mix * real + (1 - mix) * fake, 1.0
    penalty.backward()

    exact = copy.deepcopy(critic).double()
    assert penalty.item() == pytest.approx(reference_penalty(exact, at.double(), target), rel=1e-4)
    direction = [torch.randn_like(parameter, dtype=torch.float64) for parameter in exact.parameters()]
    ours = sum(
        (parameter.grad.double() * step).sum().item()
        for parameter, step in zip(critic.parameters(), direction, strict=True)
        if parameter.grad is not None
    )
    step_size, values = 1e-7, []
    for sign in (1, -2):
        torch._foreach_add_([p.data for p in exact.parameters()], direction, alpha=sign * step_size)
        values.append(reference_penalty(exact, at.double(), target))
    assert ours == pytest.approx((values[0] - values[1]) / (2 * step_size), rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_penalties_differentiate_through_attention_on_a_gpu() -> None:
    """The fused attention kernels there have no second derivative; the discriminator must not choose them."""
    torch.manual_seed(0)
    critic = DCGANDiscriminator(DiscriminatorOptions(64, 16, normalization="layer"), resolution=32).cuda()
    nn.init.constant_(critic.get_parameter("blocks.0.attention.gamma"), 0.5)
    real = torch.randn(3, 3, 32, 32, device="cuda")
    r1_penalty(critic, real).backward()
    query = critic.get_parameter("blocks.0.attention.query.weight")
    assert query.grad is not None
    assert query.grad.any()


def test_a_flat_critic_has_finite_gradients(images: tuple[Tensor, Tensor, Tensor]) -> None:
    real, fake, alpha = images
    weight = torch.zeros(48, requires_grad=True)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake, alpha)
    assert penalty.item() == 1.0
    assert torch.autograd.grad(penalty, weight)[0].isfinite().all()


def test_autocast_does_not_reach_the_penalties(images: tuple[Tensor, Tensor, Tensor]) -> None:
    real, fake, alpha = images
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Flatten(), nn.Linear(32, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert critic(real).dtype == torch.bfloat16
        inside = r1_penalty(critic, real.bfloat16()), gradient_penalty(critic, real, fake, alpha)
    outside = r1_penalty(critic, real.bfloat16()), gradient_penalty(critic, real, fake, alpha)
    for one, other in zip(inside, outside, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_no_gradient_reaches_the_images(images: tuple[Tensor, Tensor, Tensor]) -> None:
    real, fake, alpha = (tensor.clone().requires_grad_() for tensor in images)
    weight = torch.tensor(2.0, requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return weight * x.square().sum((1, 2, 3))

    (gradient_penalty(critic, real, fake, alpha.detach()) + r1_penalty(critic, real)).backward()
    assert weight.grad is not None
    assert real.grad is None
    assert fake.grad is None


def test_clip_weights_clips_every_parameter() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    before = [parameter.detach().numpy().copy() for parameter in module.parameters()]
    clip_weights_(module, 0.1)
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert parameter.requires_grad
        np.testing.assert_array_equal(parameter.detach().numpy(), np.clip(old, -np.float32(0.1), np.float32(0.1)))
