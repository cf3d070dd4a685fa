"""Regularisers against closed forms: linear critics and generators, whose Jacobians are their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gesso.common.schedules import Schedule
from lightning_modules.losses.penalties import first_order_penalty
from lightning_modules.losses.regularizers import (
    R1,
    R2,
    FirstOrderPenalty,
    FirstOrderPenaltyOfFakes,
    GradientPenalty,
    PathLength,
    Regularizer,
)

COUNT, SHAPE = 5, (2, 4, 4)


class Drawn:
    """Noise that remembers what it gave."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.given: list[Tensor] = []

    def rand(self, count: int, *shape: int) -> Tensor:
        self.given.append(torch.rand(count, *shape, generator=self.generator))
        return self.given[-1]

    def randn(self, count: int, *shape: int) -> Tensor:
        self.given.append(torch.randn(count, *shape, generator=self.generator))
        return self.given[-1]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    real, fake = torch.randn(2, COUNT, *SHAPE, generator=torch.Generator().manual_seed(1))
    return real, fake


def test_a_linear_critic_has_one_slope(images: tuple[Tensor, Tensor]) -> None:
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    noise = Drawn()

    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3))

    norm = weight.norm()
    torch.testing.assert_close(R1(1.0)(critic, *images, noise), norm.square())
    torch.testing.assert_close(R2(1.0)(critic, *images, noise), norm.square())
    torch.testing.assert_close(GradientPenalty(10.0)(critic, *images, noise), (norm - 1).square())
    first_order = FirstOrderPenalty(1.0)(critic, *images, noise)
    expected = (noise.given[-1] * weight).sum((1, 2, 3)).square().mean()
    torch.testing.assert_close(first_order, expected, rtol=1e-3, atol=1e-4)


def test_r1_looks_at_real_images_and_r2_at_generated_ones(images: tuple[Tensor, Tensor]) -> None:
    real, fake = images

    def critic(x: Tensor) -> Tensor:
        return 0.5 * x.square().sum((1, 2, 3))

    # The gradient of half the square is the image itself.
    torch.testing.assert_close(R1(1.0)(critic, real, fake, Drawn()), real.square().sum((1, 2, 3)).mean())
    torch.testing.assert_close(R2(1.0)(critic, real, fake, Drawn()), fake.square().sum((1, 2, 3)).mean())


def test_the_first_order_penalty_is_r1_in_expectation() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
    image = torch.randn(1, *SHAPE)
    many = image.expand(20_000, *SHAPE)
    exact = R1(1.0)(critic, image, image, Drawn())
    estimate = FirstOrderPenalty(1.0)(critic, many, many, Drawn())
    assert estimate.item() == pytest.approx(exact.item(), rel=0.05)
    estimate.backward()
    assert all(p.grad is not None for name, p in critic.named_parameters() if name != "3.bias")


def test_penalties_of_a_quadratic_critic_are_closed_forms(images: tuple[Tensor, Tensor]) -> None:
    real, fake = (x.double() for x in images)
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hessian = (matrix + matrix.T) / 2

    def critic(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ hessian) * flat).sum(1) / 2

    # gamma/2 E|Hx|^2.
    for kind, x in ((R1, real), (R2, fake)):
        penalty = kind(3.0)
        expected = 1.5 * (x.flatten(1) @ hessian).square().sum(1).mean()
        torch.testing.assert_close(penalty.weight(0) * penalty(critic, real, fake, Drawn()), expected)
    # D(x + s e) - D(x) = s e'Hx + s^2/2 e'He: the share of s^2 goes with s.
    for kind, x in ((FirstOrderPenalty, real), (FirstOrderPenaltyOfFakes, fake)):
        e = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
        found = kind(1.0)(critic, real, fake, Drawn())
        for scale in (1.0, 0.1, 0.01):
            slope = ((x.flatten(1) @ hessian) * e.flatten(1)).sum(1)
            exact = (slope + scale / 2 * ((e.flatten(1) @ hessian) * e.flatten(1)).sum(1)).square().mean()
            ours = first_order_penalty(critic, x, e, scale=scale)
            assert ours.item() == pytest.approx(exact.item(), rel=1e-9)
        assert found.item() == pytest.approx(exact.item(), rel=1e-9)


def test_the_first_order_penalty_tends_to_r1_as_its_scale_goes_to_0() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    hessian, x = (matrix + matrix.T) / 2, torch.randn(1, 1, 2, 2, generator=generator, dtype=torch.float64)

    def critic(y: Tensor) -> Tensor:
        flat = y.flatten(1)
        return ((flat @ hessian) * flat).sum(1) / 2

    # Of e ~ N(0, I) the moments alone count: E(e'g)^2 = |g|^2, E(e'He)^2 = (tr H)^2 + 2 |H|^2, and odd ones are 0.
    r1 = (x.flatten() @ hessian).square().sum()
    fourth = hessian.trace().square() + 2 * hessian.square().sum()
    directions = torch.randn(200_000, 1, 2, 2, generator=generator)
    many = x.expand(200_000, 1, 2, 2)
    apart = []
    for scale in (1.0, 0.3, 0.03):
        found = first_order_penalty(critic, many, directions, scale=scale)
        assert found.item() == pytest.approx((r1 + scale**2 / 4 * fourth).item(), rel=0.02)
        apart.append(abs(found.item() / r1.item() - 1))
    assert apart[0] > 4 * apart[1] > 4 * apart[2]
    assert apart[2] < 0.02


def test_the_first_order_difference_is_taken_in_fp32() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(32, 1), nn.Flatten(0))
    real = torch.randn(COUNT, *SHAPE)
    plain = FirstOrderPenalty(1.0)(critic, real, real, Drawn())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(FirstOrderPenalty(1.0)(critic, real, real, Drawn()), plain)


@pytest.mark.parametrize(
    ("regularizer", "weight"), [(R1(3.0, 4), 6.0), (R2(3.0, 4), 6.0), (GradientPenalty(10.0), 10.0)]
)
def test_a_lazy_regularizer_weighs_what_it_leaves_out(regularizer: Regularizer, weight: float) -> None:
    due = [step for step in range(10) if regularizer.due(step)]
    assert due == list(range(0, 10, regularizer.interval))
    assert regularizer.weight(1000) == weight
    with pytest.raises(ValueError, match=f"interval of {regularizer.name} is 0"):
        type(regularizer)(1.0, 0)


def test_a_weight_may_change_over_the_training() -> None:
    fading = R1(Schedule(2.0, 0.2, course="linear"), 4)
    assert [fading.weight(seen, total_kimg=10.0) for seen in (0, 5000, 20_000)] == pytest.approx([4.0, 2.2, 0.4])


def test_which_ones_differentiate_twice() -> None:
    kinds = (R1, R2, GradientPenalty, FirstOrderPenalty, FirstOrderPenaltyOfFakes)
    assert {kind.name: kind.requires_double_backward for kind in kinds} == {
        "r1": True,
        "r2": True,
        "gradient_penalty": True,
        "first_order": False,
        "first_order_fake": False,
    }


@pytest.mark.parametrize("layers", [0, 3])
def test_path_lengths_of_a_linear_generator_are_its_jacobians(layers: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(32, 7, requires_grad=True)
    latents = torch.randn(COUNT, layers, 7) if layers else torch.randn(COUNT, 7)
    latents.requires_grad_()
    images = ((latents.sum(1) if layers else latents) @ matrix.T).view(COUNT, *SHAPE)
    noise, regularizer = Drawn(), PathLength(decay=0.25)
    found = regularizer(images, latents, noise)
    # Each layer's latent has the same Jacobian; their squared lengths are averaged.
    lengths = (noise.given[0].flatten(1) / 4 @ matrix).norm(dim=1)
    mean = 0.25 * lengths.mean()
    torch.testing.assert_close(regularizer.mean, mean.detach().view(1))
    # The mean has moved with these lengths, and the gradient runs through it.
    penalty = (lengths - mean).square().mean()
    torch.testing.assert_close(found, penalty)
    (ours,) = torch.autograd.grad(found, matrix, retain_graph=True)
    (expected,) = torch.autograd.grad(penalty, matrix)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_path_lengths_that_are_not_finite_leave_the_mean() -> None:
    regularizer: Any = PathLength()
    regularizer.mean.fill_(2.0)
    latents = torch.full((COUNT, 32), torch.nan, requires_grad=True)
    regularizer(latents.square().view(COUNT, *SHAPE), latents, Drawn())
    assert regularizer.mean.item() == 2.0


class Ones:
    """Noise of ones."""

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.ones(count, *shape)


def test_the_mean_of_path_lengths_is_as_exact_beside_weights_in_bf16() -> None:
    regularizer: Any = PathLength().to(torch.bfloat16)
    # 600 lengths of 3: in bf16, a hundredth of what is missing would soon be rounded to nothing.
    for _ in range(600):
        latents = torch.ones(2, 1, requires_grad=True)
        regularizer((3 * latents)[:, :, None, None], latents, Ones())
    assert regularizer.mean.item() == pytest.approx(3 * (1 - 0.99**600), rel=1e-4)
