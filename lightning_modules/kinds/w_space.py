"""Interface of generators with a space W: a mapping network, and a w for each layer of the synthesis network.

W: Karras et al. 2019, arXiv:1812.04948. W+: each layer has a w of its own (Abdal et al. 2019, arXiv:1904.03189).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lightning_modules.networks.checksum import weights_checksum
from lightning_modules.networks.stylegan2.generator import StyleGenerator


class WSpace(Protocol):
    """What projection, directions and edits need of a generator; they know nothing else of it.

    Attributes:
        w_dim: dimensions of w.
        num_ws: number of layers that take a w.
        noise_sides: sides in pixels of the maps that an image's noise consists of; empty: it takes no noise.
        device: of its weights.
    """

    w_dim: int
    num_ws: int
    noise_sides: tuple[int, ...]
    device: torch.device

    def sampled(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """w of samples number ``index`` of the sequence ``seed``, not truncated: ``[N, w_dim]``.

        Args:
            index: int64 ``[N]``.
            seed: of the sequence: see ``Abilities.generate``.
            labels: int64 ``[N]``; None: as ``Abilities.generate`` chooses.
        """
        ...

    def layers(self, w: Tensor) -> Tensor:
        """w for each layer, truncated as the family's samples are: ``[N, w_dim]`` to ``[N, num_ws, w_dim]``."""
        ...

    def images(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: float32 ``[N, C, H, W]``.

        Args:
            ws: ``[N, num_ws, w_dim]``.
            noise: N(0, 1), ``[N, sum of noise_sides^2]``; None: the network's own, the same for all images.
        """
        ...

    def style_weights(self) -> list[Tensor]:
        """Weights of the affine map from w to styles of each of the ``num_ws`` layers: ``[styles, w_dim]`` each."""
        ...

    def checksum(self) -> str:
        """SHA-256 of the generator's weights: says whether a direction is of this very generator."""
        ...


class GeneratorSpace(WSpace):
    """W of the generator of a StyleGAN 2 or 3.

    Args:
        generator: the generator.
        latents: samples' numbers, seed and labels to latents z ``[N, latent_dim]`` and chosen labels.
        truncation_psi, truncation_cutoff: see ``MappingNetwork.truncated``.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        latents: Callable[[Tensor, int, Tensor | None], tuple[Tensor, Tensor | None]],
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> None:
        self.generator, self._latents = generator, latents
        self.truncation_psi, self.truncation_cutoff = truncation_psi, truncation_cutoff
        self.w_dim, self.num_ws = generator.mapping.w_dim, generator.synthesis.num_ws
        self.noise_sides = generator.synthesis.noise_sides
        self.device = generator.mapping.w_avg.device

    def sampled(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """See ``WSpace``."""
        return self.generator.mapping(*self._latents(index, seed, labels))

    def layers(self, w: Tensor) -> Tensor:
        """See ``WSpace``."""
        return self.generator.mapping.truncated(
            self.generator.broadcast(w), self.truncation_psi, self.truncation_cutoff
        )

    def images(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """See ``WSpace``."""
        return self.generator.synthesis(ws, "constant" if noise is None else noise).float()

    def style_weights(self) -> list[Tensor]:
        """See ``WSpace``."""
        return self.generator.style_weights()

    def checksum(self) -> str:
        """See ``WSpace``."""
        return weights_checksum(self.generator)
