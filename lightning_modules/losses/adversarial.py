"""The adversarial losses of the GAN literature, on logits (before any sigmoid), in float32 whatever the autocast.

With r the logits of real images, f those of generated ones, σ the sigmoid and E the mean over the batch:

================== ================================= =================== ===================================
name               discriminator minimises           generator minimises paper
================== ================================= =================== ===================================
``vanilla``        -E log σ(r) - E log(1 - σ(f))     E log(1 - σ(f))     Goodfellow et al. 2014 (minimax)
``non_saturating`` -E log σ(r) - E log(1 - σ(f))     -E log σ(f)         Goodfellow et al. 2014 (section 3)
``lsgan``          1/2 E(r - 1)² + 1/2 E f²          1/2 E(f - 1)²       Mao et al. 2017 (a, b, c = 0, 1, 1)
``wgan``           E f - E r                         -E f                Arjovsky et al. 2017
``wgan_gp``        E f - E r                         -E f                Gulrajani et al. 2017
``hinge``          E max(0, 1 - r) + E max(0, 1 + f) -E f                Lim & Ye 2017, Miyato et al. 2018
``rpgan``          -E log σ(r - f)                   -E log σ(f - r)     Jolicoeur-Martineau 2019 (relativistic
                                                                         pairing), Huang et al. 2024 (R3GAN)
================== ================================= =================== ===================================

What ``wgan`` and ``wgan_gp`` need beside, clipped weights and a gradient penalty, is in ``penalties.py``.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

AdversarialLoss = Literal["vanilla", "non_saturating", "lsgan", "wgan", "wgan_gp", "hinge", "rpgan"]


def discriminator_loss(name: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The loss of the discriminator (critic); see the module's table.

    Args:
        name: the loss.
        real_logits: of real images, any shape.
        fake_logits: of generated images, any shape.

    Returns:
        Scalar, float32 or better.

    Raises:
        ValueError: an unknown name.
    """
    real, fake = _whole(real_logits), _whole(fake_logits)
    match name:
        case "vanilla" | "non_saturating":
            # -log σ(x) = softplus(-x) and -log(1 - σ(x)) = softplus(x), exact where the sigmoid would round to 0 or 1.
            return softplus(-real).mean() + softplus(fake).mean()
        case "lsgan":
            return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()
        case "wgan" | "wgan_gp":
            return fake.mean() - real.mean()
        case "hinge":
            return relu(1 - real).mean() + relu(1 + fake).mean()
        case "rpgan":
            return softplus(fake - real).mean()
    raise _unknown(name)


def generator_loss(name: AdversarialLoss, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """The loss of the generator; see the module's table.

    Args:
        name: the loss.
        fake_logits: of generated images, any shape.
        real_logits: of as many real images, for a loss that pairs them (``pairs_images``).

    Returns:
        Scalar, float32 or better.

    Raises:
        ValueError: an unknown name, or no real logits where they are needed.
    """
    fake = _whole(fake_logits)
    match name:
        case "vanilla":
            return -softplus(fake).mean()
        case "non_saturating":
            return softplus(-fake).mean()
        case "lsgan":
            return 0.5 * (fake - 1).square().mean()
        case "wgan" | "wgan_gp" | "hinge":
            return -fake.mean()
        case "rpgan":
            if real_logits is None:
                raise ValueError("rpgan compares generated images with real ones: give the real ones' logits, too")
            return softplus(_whole(real_logits) - fake).mean()
    raise _unknown(name)


def pairs_images(name: AdversarialLoss) -> bool:
    """Whether the generator's loss compares each generated image with a real one."""
    return name == "rpgan"


def _whole(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _unknown(name: str) -> ValueError:
    return ValueError(f"adversarial loss {name!r} is unknown; choose one of {', '.join(get_args(AdversarialLoss))}")
