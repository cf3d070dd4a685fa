"""Penalties and bounds that keep a discriminator smooth.

The gradient penalties are exact (double backward). They run the critic in its parameters' own precision, not in
autocast's: squared gradients overflow float16, and bfloat16 would round away what the second differentiation needs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_modules.networks.precision import in_full_precision

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """WGAN-GP's penalty E(‖∇D(x̂)‖₂ - 1)², x̂ on the line between a real and a generated image.

    Gulrajani et al. 2017, arXiv:1704.00028. The penalty is of single images, so the critic must not normalise over the
    batch.

    Args:
        critic: images to logits ``[N]``.
        real: images ``[N, C, H, W]``.
        fake: images ``[N, C, H, W]``.
        alpha: uniform in [0, 1), ``[N]`` or ``[N, 1, 1, 1]``: the real image's share in x̂.

    Returns:
        float32 scalar, not yet weighted with the paper's λ = 10; differentiable in the critic's parameters.
    """
    # No gradient flows back to the images: only the critic is trained on the penalty.
    mixed = torch.lerp(fake.detach().float(), real.detach().float(), alpha.float().view(-1, 1, 1, 1))
    return (_image_gradients(critic, mixed).flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(critic: Critic, real: Tensor) -> Tensor:
    """R1, E‖∇D(x)‖₂² on real images (Mescheder et al. 2018, arXiv:1801.04406).

    Args:
        critic: images to logits ``[N]``.
        real: images ``[N, C, H, W]``.

    Returns:
        float32 scalar, not yet weighted with the paper's γ/2 (times the interval when applied lazily, as in
        StyleGAN2); differentiable in the critic's parameters.
    """
    return _image_gradients(critic, in_full_precision(real.detach())).square().sum((1, 2, 3)).mean()


def first_order_penalty(critic: Critic, images: Tensor, directions: Tensor, *, scale: float = 0.01) -> Tensor:
    """E((D(x + s e) - D(x)) / s)², which for e ~ N(0, I) and small s is E‖∇D(x)‖², by first derivatives alone.

    Args:
        critic: images to logits ``[N]``.
        images: x, ``[N, C, H, W]``.
        directions: e, like ``images``.
        scale: s.

    Returns:
        Scalar, float32 or better; differentiable in the critic's parameters.
    """
    images = in_full_precision(images.detach())
    # Logits that are nearly alike are subtracted: 16 bits would leave nothing.
    with torch.autocast(images.device.type, enabled=False):
        there, here = critic(images + scale * directions.to(images.dtype)), critic(images)
        difference = in_full_precision(there) - in_full_precision(here)
    return (difference / scale).square().mean()


def path_lengths(images: Tensor, latents: Tensor, directions: Tensor) -> Tensor:
    """‖Jᵀy‖₂ of a generator's Jacobian J = ∂image/∂latent (StyleGAN2, Karras et al. 2020, arXiv:1912.04958, eq. 4).

    Args:
        images: ``[N, C, H, W]``, made from ``latents`` with a graph.
        latents: ``[N, D]``; or one for each layer, ``[N, L, D]``, whose squared lengths are averaged.
        directions: y ~ N(0, I), like ``images``; divided by sqrt(H W) here, so that lengths do not grow with the side.

    Returns:
        At least float32 ``[N]``, differentiable in the generator's parameters.
    """
    with torch.autocast(images.device.type, enabled=False):
        projected = (in_full_precision(images) * directions).sum() / (images.shape[2] * images.shape[3]) ** 0.5
        (gradients,) = torch.autograd.grad(projected, latents, create_graph=True)
    squares = in_full_precision(gradients).square().sum(-1)
    return (squares.mean(1) if squares.dim() > 1 else squares).sqrt()


@torch.no_grad()
def clip_weights_(module: nn.Module, bound: float) -> None:
    """Clamps all parameters to [-bound, bound] in place (WGAN, Arjovsky et al. 2017, arXiv:1701.07875: 0.01)."""
    for parameter in module.parameters():
        parameter.clamp_(-bound, bound)


def _image_gradients(critic: Critic, images: Tensor) -> Tensor:
    """Each logit's gradient by its own image, ``[N, C, H, W]`` float32, itself differentiable."""
    images = images.requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        # The sum's gradient is each logit's own, as long as no logit depends on another image.
        (gradients,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradients
