"""The two terms of a variational autoencoder's objective, in nats for one image, in float32 whatever the autocast.

Both are sums over an image's pixels or latent dimensions, not means, so that their sum is the negative evidence lower
bound (up to a constant) and the KL term's weight is the β of the β-VAE paper (Higgins et al. 2017).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Reconstruction = Literal["mse", "l1", "bernoulli"]


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)), in closed form (Kingma & Welling 2014, appendix B).

    Args:
        mean: ``[N, D]``.
        log_variance: ``[N, D]``, natural logarithm.

    Returns:
        float32 ``[N]``, in nats.
    """
    mean, log_variance = mean.float(), log_variance.float()
    # expm1: near the prior, exp(x) - 1 would cancel to nothing.
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).sum(1)


def drawn_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """Latents out of their posterior: mean + standard deviation * noise.

    Args:
        moments: ``[N, 2C, h, w]``: the C means, then the C standard deviations, as a shard set of latents has them.
        noise: ``[N, C, h, w]`` from N(0, 1); zeros give the means.

    Returns:
        ``[N, C, h, w]``.
    """
    mean, deviation = moments.chunk(2, dim=1)
    return torch.addcmul(mean, deviation, noise)


def reconstruction_loss(name: Reconstruction, reconstruction: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of images, without its constant, summed over pixels and averaged over the batch.

    Args:
        name: ``mse``: 1/2 ‖x - x̂‖², a Gaussian of unit variance; ``l1``: ‖x - x̂‖₁, a Laplace of unit scale;
            ``bernoulli``: cross entropy of intensities brought to [0, 1], for nearly black-and-white images.
        reconstruction: x̂, ``[N, C, H, W]`` in [-1, 1].
        target: x, ``[N, C, H, W]`` in [-1, 1].

    Returns:
        float32 scalar, in nats.

    Raises:
        ValueError: an unknown name.
    """
    reconstruction, target = reconstruction.float(), target.float()
    match name:
        case "mse":
            loss = 0.5 * (reconstruction - target).square()
        case "l1":
            loss = (reconstruction - target).abs()
        case "bernoulli":
            # Kept off -1 and 1, where tanh arrives when it rounds and a logarithm would be infinite.
            epsilon = torch.finfo(torch.float32).eps
            probability = _to_unit(reconstruction.clamp(epsilon - 1, 1 - epsilon))
            intensity = _to_unit(target)
            loss = -(intensity * probability.log() + (1 - intensity) * (1 - probability).log())
        case _:
            choices = ", ".join(get_args(Reconstruction))
            raise ValueError(f"reconstruction loss {name!r} is unknown; choose one of {choices}")
    return loss.sum() / len(target)


def _to_unit(images: Tensor) -> Tensor:
    return (images + 1) / 2
