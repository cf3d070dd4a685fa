"""FactorVAE's discriminator of latents (Kim and Mnih 2018, arXiv:1802.05983, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count
from lightning_modules.networks.precision import at_least_float32, like_weights


@dataclass(frozen=True)
class LatentDiscriminatorOptions:
    """A perceptron on latents.

    Args:
        width: units of each hidden layer.
        layers: number of hidden layers.
    """

    width: Count = 1000
    layers: Count = 5


class LatentDiscriminator(nn.Module):
    """Latents to one logit: layers with LeakyReLU(0.2), the last without.

    The paper's six layers end in two logits; their difference is this one.

    Args:
        options: see ``LatentDiscriminatorOptions``.
        latent_dim: length of z.
    """

    def __init__(
        self, options: LatentDiscriminatorOptions = LatentDiscriminatorOptions(), *, latent_dim: int = 10
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim, *[options.width] * options.layers]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.to_logits = nn.Linear(options.width, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``[N]``, float32 or better, of ``z`` ``[N, latent_dim]``; positive: the latents belong together."""
        x = self.layers(like_weights(z, self))
        # In the parameters' own precision, as DCGAN's.
        with torch.autocast(x.device.type, enabled=False):
            logits = self.to_logits(x.to(self.to_logits.weight.dtype)).squeeze(1)
        return logits.to(at_least_float32(logits.dtype))
