"""Regularisers against closed forms: linear critics and generators, whose Jacobians are their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.losses.regularizers import R1, R2, FirstOrderPenalty, GradientPenalty, PathLength, Regularizer

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
    assert regularizer.weight == weight
    with pytest.raises(ValueError, match=f"interval of {regularizer.name} is 0"):
        type(regularizer)(1.0, 0)


def test_which_ones_differentiate_twice() -> None:
    assert {kind.name: kind.requires_double_backward for kind in (R1, R2, GradientPenalty, FirstOrderPenalty)} == {
        "r1": True,
        "r2": True,
        "gradient_penalty": True,
        "first_order": False,
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
