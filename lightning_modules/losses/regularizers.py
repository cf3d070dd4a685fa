"""Regularisers of adversarial training: each knows when it is due, how much it weighs and what it is called in logs.

A lazy one (Karras et al. 2020, StyleGAN2) is due every ``interval`` steps, and that much stronger then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from gesso.common.ranks import mean_over_ranks
from gesso.common.schedules import Schedule, at
from lightning_modules.losses.penalties import Critic, first_order_penalty, gradient_penalty, path_lengths, r1_penalty
from lightning_modules.networks.precision import ExactBuffers


class Noise(Protocol):
    """Where a regulariser draws from: an ``ImageFamily``."""

    def rand(self, count: int, *shape: int) -> Tensor: ...

    def randn(self, count: int, *shape: int) -> Tensor: ...


@dataclass(frozen=True)
class Regularizer:
    """A penalty on the discriminator.

    Args:
        factor: its weight as the paper names it; it may change over the training.
        interval: steps from one time to the next.

    Raises:
        ValueError: an interval below 1.
    """

    factor: float | Schedule
    interval: int = 1

    #: What its value is logged as, not yet weighted.
    name: ClassVar[str]
    #: Whether it differentiates gradients, which ZeRO 3 and torch.compile cannot.
    requires_double_backward: ClassVar[bool] = True
    #: Whether it looks at generated images.
    needs_fakes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the interval of {self.name} is {self.interval}; it must be 1 or more")

    def due(self, step: int) -> bool:
        """Whether its turn is in step number ``step``, from 0."""
        return step % self.interval == 0

    def weight(self, images_seen: int, *, total_kimg: float | None = None) -> float:
        """What its value is multiplied with in the step that starts after ``images_seen`` images.

        Args:
            images_seen: number of images trained on before this step.
            total_kimg: length of the training in thousands of images, which a schedule may need.
        """
        return self.interval * at(self.factor, images_seen, total_kimg=total_kimg)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        """The penalty, not yet weighted.

        Args:
            critic: images to logits ``[N]``.
            real, fake: images ``[N, C, H, W]``.
            noise: for random directions and mixtures.

        Returns:
            float32 scalar, differentiable in the critic's parameters.
        """
        raise NotImplementedError


class _HalfGamma(Regularizer):
    def weight(self, images_seen: int, *, total_kimg: float | None = None) -> float:
        """interval * gamma / 2."""
        return super().weight(images_seen, total_kimg=total_kimg) / 2


class R1(_HalfGamma):
    """gamma/2 E‖∇D(x)‖² on real images (Mescheder et al. 2018). ``factor``: gamma."""

    name = "r1"

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return r1_penalty(critic, real)


class R2(_HalfGamma):
    """gamma/2 E‖∇D(G(z))‖² on generated images (Mescheder et al. 2018; R3GAN, Huang et al. 2024). ``factor``: gamma."""

    name = "r2"
    needs_fakes = True

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return r1_penalty(critic, fake)


class FirstOrderPenalty(_HalfGamma):
    """gamma/2 E((D(x + s e) - D(x)) / s)², e ~ N(0, I): R1 in expectation as s goes to 0, without a double backward.

    It runs where R1 cannot: under ZeRO 3 and torch.compile. ``factor``: gamma.
    """

    name = "first_order"
    requires_double_backward = False

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return first_order_penalty(critic, real, noise.randn(len(real), *real.shape[1:]))


class FirstOrderPenaltyOfFakes(_HalfGamma):
    """The same of generated images: R2 in expectation. ``factor``: gamma."""

    name = "first_order_fake"
    requires_double_backward = False
    needs_fakes = True

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return first_order_penalty(critic, fake, noise.randn(len(fake), *fake.shape[1:]))


class GradientPenalty(Regularizer):
    """lambda E(‖∇D(x̂)‖ - 1)² between real and generated images (WGAN-GP, Gulrajani et al. 2017). ``factor``: lambda."""

    name = "gradient_penalty"
    needs_fakes = True

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        return gradient_penalty(critic, real, fake, noise.rand(len(real), 1, 1, 1))


class PathLength(ExactBuffers):
    """E(‖Jᵀy‖ - a)² of a generator, y ~ N(0, I) in image space, a the mean of these lengths so far (StyleGAN2, eq. 4).

    ``mean``, a, is a buffer: register the module in the family, and it is saved with it. It moves with the lengths of
    all ranks, before they are compared with it, and the gradient runs through it, as in the authors' code. Of several
    micro-batches each moves it in turn.

    Args:
        factor: the paper's weight, 2.
        interval: steps from one time to the next; the paper's 4.
        decay: share of the new lengths in the mean.
    """

    name = "path_length"
    requires_double_backward = True
    exact_buffers = ("mean",)
    mean: Tensor

    def __init__(self, factor: float = 2.0, interval: int = 4, decay: float = 0.01) -> None:
        super().__init__()
        if interval < 1:
            raise ValueError(f"the interval of path_length is {interval}; it must be 1 or more")
        self.factor, self.interval, self.decay = factor, interval, decay
        self.register_buffer("mean", torch.zeros(1))

    def due(self, step: int) -> bool:
        """Whether its turn is in step number ``step``, from 0."""
        return step % self.interval == 0

    @property
    def weight(self) -> float:
        """What its value is multiplied with."""
        return self.interval * self.factor

    def forward(self, images: Tensor, latents: Tensor, noise: Noise) -> Tensor:
        """The penalty, not yet weighted; moves the mean.

        Args:
            images: ``[N, C, H, W]``, made from ``latents`` with a graph.
            latents: ``[N, D]`` or, one for each layer, ``[N, L, D]``.
            noise: draws y.
        """
        lengths = path_lengths(images, latents, noise.randn(len(images), *images.shape[1:]))
        own = lengths.mean()
        overall = mean_over_ranks(own).to(self.mean.dtype)
        with torch.no_grad():
            moved = self.mean.lerp(overall, self.decay)
            # A step that is skipped must leave no trace.
            self.mean.copy_(torch.where(moved.isfinite(), moved, self.mean))
            slope = 2 * self.decay * (overall - self.mean).squeeze()
        # 0, with the gradient that the moved mean has: so the mean of the ranks' gradients is that of one rank.
        through_mean = slope * (own - own.detach())
        return (lengths - self.mean).square().mean() - through_mean
