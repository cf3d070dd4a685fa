"""StyleGAN2's mapping network: from z, which is Gaussian, to w, which need not be (Karras et al. 2020).

arXiv:1912.04958; truncation of w: Karras et al. 2019, arXiv:1812.04948.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive, Share
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import ExactBuffers, at_least_float32, in_full_precision, weights_dtype
from lightning_modules.networks.stylegan2.layers import EqualizedLinear


@dataclass(frozen=True)
class MappingOptions:
    """The mapping network.

    Args:
        layers: number of fully connected layers.
        w_dim: dimensions of w.
        lr_multiplier: of the learning rate of its layers.
        w_avg_beta: how much of the mean of w stays at each update of the generator or with its images.
    """

    layers: Count = 8
    w_dim: Count = 512
    lr_multiplier: Positive = 0.01
    w_avg_beta: Share = 0.995


class LatentMapping(ExactBuffers):
    """What mapping networks share: classes as vectors, the running mean of w, and truncation towards it.

    Args:
        options: see ``MappingOptions``.
        latent_dim: dimensions of z; 0: labels are the only input.
        num_classes: 0: unconditional.
        w_dim: dimensions of all that it makes of a latent.
    """

    exact_buffers = ("w_avg",)
    #: The running mean of w, ``[w_dim]``, towards which truncation moves; averages of weights copy it.
    w_avg: Tensor

    def __init__(self, options: MappingOptions, *, latent_dim: int, num_classes: int, w_dim: int) -> None:
        super().__init__()
        self.options, self.latent_dim, self.num_classes, self.w_dim = options, latent_dim, num_classes, w_dim
        self.embedding = EqualizedLinear(num_classes, options.w_dim) if num_classes else None
        if latent_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def embedded(self, labels: Tensor) -> Tensor:
        """Labels int64 ``[N]`` as vectors ``[N, options.w_dim]`` of mean square 1."""
        assert self.embedding is not None
        # The linear layer of one-hot labels.
        weight = self.embedding.weight.T / self.num_classes**0.5
        return normalize_2nd_moment(in_full_precision(nn.functional.embedding(labels, weight) + self.embedding.bias))

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        """Moves ``w_avg`` towards the mean of an update's w, over all ranks: ``[w_dim]``."""
        self.w_avg.copy_(mean.to(self.w_avg.dtype).lerp(self.w_avg, self.options.w_avg_beta))

    def truncated(self, ws: Tensor, psi: float | Tensor, cutoff: int | None = None) -> Tensor:
        """Moves w towards its mean: less variety, better pictures.

        Args:
            ws: ``[N, L, w_dim]``.
            psi: 1: w as it is, 0: its mean; a number, or a tensor [1].
            cutoff: the first so many layers alone; None: all.
        """
        if not isinstance(psi, Tensor) and psi == 1:
            return ws
        moved = torch.lerp(self.w_avg.to(ws.dtype), ws, psi)
        return moved if cutoff is None else torch.cat([moved[:, :cutoff], ws[:, cutoff:]], 1)


class MappingNetwork(LatentMapping):
    """Latents and labels to w.

    Args:
        options: see ``MappingOptions``.
        latent_dim: dimensions of z; 0: labels are the only input.
        num_classes: 0: unconditional.
    """

    def __init__(self, options: MappingOptions = MappingOptions(), *, latent_dim: int, num_classes: int = 0) -> None:
        width = options.w_dim
        super().__init__(options, latent_dim=latent_dim, num_classes=num_classes, w_dim=width)
        sizes = [latent_dim + (width if num_classes else 0), *[width] * options.layers]
        self.layers = nn.ModuleList(
            EqualizedLinear(before, width, activation="lrelu", lr_multiplier=options.lr_multiplier)
            for before in sizes[:-1]
        )

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """w of latents and labels, at least float32 ``[N, w_dim]``, whatever the autocast.

        Args:
            z: ``[N, latent_dim]``; None where ``latent_dim`` is 0.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        some = z if z is not None else labels
        assert some is not None
        with torch.autocast(some.device.type, enabled=False):
            dtype = at_least_float32(weights_dtype(self))
            parts = [] if z is None else [normalize_2nd_moment(z.to(dtype))]
            if labels is not None:
                parts.append(self.embedded(labels))
            x = torch.cat(parts, 1)
            for layer in self.layers:
                x = layer(x)
            return x


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Each row of ``x`` [N, D] over the root of its mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
