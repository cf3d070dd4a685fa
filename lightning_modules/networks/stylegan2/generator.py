"""Generators made of a mapping network, z to w, and a synthesis network, w to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_modules.networks.stylegan2.mapping import LatentMapping, MappingNetwork, MappingOptions

#: Noise of all layers ``[N, noise_size]``; ``constant``: that of the network's buffers; ``none``.
NoiseInput = Tensor | Literal["constant", "none"]


class StyleGenerator(nn.Module):
    """Mapping, then synthesis.

    Args:
        mapping: options of the mapping network.
        synthesis: options of the synthesis network.
        latent_dim: dimensions of z, which is drawn from N(0, 1).
        resolution: side of the images in pixels.
        channels: of the images, 1 or 3.
        num_classes: 0: unconditional.
    """

    #: Makes the mapping network of its options and sizes.
    mapping_kind: ClassVar[Callable[..., LatentMapping]] = MappingNetwork
    #: Makes the synthesis network, one w for each of its ``num_ws`` layers to images, of its options and sizes.
    synthesis_kind: ClassVar[type[nn.Module]]

    mapping: LatentMapping
    synthesis: Any

    def __init__(
        self,
        mapping: MappingOptions,
        synthesis: object,
        *,
        latent_dim: int = 512,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.mapping = self.mapping_kind(mapping, latent_dim=latent_dim, num_classes=num_classes)
        self.synthesis = self.synthesis_kind(
            synthesis, **self.synthesis_sizes(mapping), resolution=resolution, channels=channels
        )

    def synthesis_sizes(self, mapping: MappingOptions) -> dict[str, int]:
        """The sizes of a w, which the synthesis network is told."""
        return {"w_dim": mapping.w_dim}

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        truncation_psi: float | Tensor = 1.0,
        truncation_cutoff: int | None = None,
        noise: NoiseInput = "constant",
    ) -> Tensor:
        """Images of latents, about in [-1, 1]: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            z: ``[N, latent_dim]``.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.
            truncation_psi, truncation_cutoff: see ``MappingNetwork.truncated``.
            noise: of the synthesis network, if it has any: N(0, 1) ``[N, noise_size]``, ``constant`` or ``none``.
        """
        ws = self.broadcast(self.mapping(z, labels))
        images: Tensor = self.synthesis(self.mapping.truncated(ws, truncation_psi, truncation_cutoff), noise)
        return images

    def broadcast(self, w: Tensor) -> Tensor:
        """The same w for each layer: ``[N, w_dim]`` to ``[N, num_ws, w_dim]``."""
        return w[:, None].expand(-1, self.synthesis.num_ws, -1)

    def style_weights(self) -> list[Tensor]:
        """Weights of the affine map from w to styles of each of the ``num_ws`` latents: ``[styles, w_dim]`` each."""
        return [affine.weight.detach().float() for affine in self.synthesis.affines()]
