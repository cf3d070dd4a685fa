"""FastGAN's generator (Liu et al. 2021, arXiv:2101.04775), in the form of Projected GANs (arXiv:2111.01007)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gesso.common.ranges import Count
from lightning_modules.networks.batch_norm import batch_norm
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import like_weights
from lightning_modules.networks.stylegan2.mapping import normalize_2nd_moment

#: Channels of the feature map of each side, in times ``width``.
CHANNELS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 1 / 2, 512: 1 / 4, 1024: 1 / 8}
#: Sides of the feature maps that those 16 times smaller excite.
EXCITED = (64, 128, 256, 512)


@dataclass(frozen=True)
class FastGANOptions:
    """FastGAN's generator.

    Args:
        width: channels of the feature map at 128 px; those of smaller ones have up to 16 times as many.
        lite: one convolution for each side in place of two with noise: the authors' ``fastgan_lite``.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 128
    lite: bool = False
    gradient_checkpointing: bool = False


class GatedConvolution(nn.Module):
    """Convolution, noise, batch norm, and a gated linear unit: half of the channels gate the other half.

    Args:
        before, after: channels.
        num_classes: of conditional batch norm; 0: unconditional.
        noisy: whether noise of a learned strength is added.
    """

    def __init__(self, before: int, after: int, *, num_classes: int, noisy: bool) -> None:
        super().__init__()
        self.convolution = parametrizations.spectral_norm(nn.Conv2d(before, 2 * after, 3, padding=1, bias=False))
        self.strength = nn.Parameter(torch.zeros(1)) if noisy else None
        self.norm = batch_norm(2 * after, num_classes)

    def forward(self, x: Tensor, labels: Tensor | None, noise: Tensor | None) -> Tensor:
        """``[N, before, H, W]`` to ``[N, after, H, W]``; ``noise``: ``[N, 1, H, W]``, None: none."""
        x = self.convolution(x)
        if self.strength is not None and noise is not None:
            x = x + (self.strength * noise).to(x.dtype)
        return F.glu(self.norm(x) if labels is None else self.norm(x, labels), 1)


class UpBlock(nn.Module):
    """Doubles the side, then one or two gated convolutions.

    Args:
        before, after: channels.
        num_classes: see ``GatedConvolution``.
        lite: one convolution without noise.
    """

    def __init__(self, before: int, after: int, *, num_classes: int, lite: bool) -> None:
        super().__init__()
        channels = [(before, after)] if lite else [(before, after), (after, after)]
        self.layers = nn.ModuleList(
            GatedConvolution(*of_one, num_classes=num_classes, noisy=not lite) for of_one in channels
        )

    def forward(self, x: Tensor, labels: Tensor | None, noise: list[Tensor | None]) -> Tensor:
        """``[N, before, H, W]`` to ``[N, after, 2H, 2W]``; ``noise``: of each convolution."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        for layer, of_layer in zip(self.layers, noise, strict=True):
            x = layer(x, labels, of_layer)
        return x


class Excitation(nn.Module):
    """Weighs the channels of a feature map by a smaller one: skip-layer excitation.

    Args:
        small, big: channels of both.
    """

    def __init__(self, small: int, big: int) -> None:
        super().__init__()
        self.squeeze = parametrizations.spectral_norm(nn.Conv2d(small, big, 4, bias=False))
        self.excite = parametrizations.spectral_norm(nn.Conv2d(big, big, 1, bias=False))

    def forward(self, small: Tensor, big: Tensor) -> Tensor:
        """``big`` ``[N, C, H, W]`` with weighted channels."""
        weights = self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(small, 4))))
        return big * weights.sigmoid()


class FastGANGenerator(nn.Module):
    """Latents to images.

    Classes are conditions by conditional batch norm, with a scale and a shift for each class.

    Args:
        options: see ``FastGANOptions``.
        latent_dim: dimensions of z.
        resolution: side of the images in pixels, a power of two from 16 to 1024.
        channels: 1 (grey) or 3 (RGB).
        num_classes: 0: unconditional.

    Raises:
        ValueError: an unsupported resolution, or a width of which nothing is left at it.
    """

    def __init__(
        self,
        options: FastGANOptions = FastGANOptions(),
        *,
        latent_dim: int = 256,
        resolution: int = 256,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if resolution not in CHANNELS or resolution < 16:
            raise ValueError(f"resolution is {resolution}; FastGAN's generator needs a power of two from 16 to 1024")
        widths = {side: int(options.width * times) for side, times in CHANNELS.items()}
        if not widths[resolution]:
            raise ValueError(f"generator.width {options.width} leaves no channel at {resolution} px; take more")
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        self.sides = [side for side in CHANNELS if 4 < side <= resolution]
        start = nn.ConvTranspose2d(latent_dim, 2 * widths[4], 4, bias=False)
        self.start = parametrizations.spectral_norm(start)
        self.norm = batch_norm(2 * widths[4])
        self.blocks = nn.ModuleList(
            UpBlock(widths[side // 2], widths[side], num_classes=num_classes, lite=options.lite) for side in self.sides
        )
        self.excitations = nn.ModuleDict(
            {str(side): Excitation(widths[side // 16], widths[side]) for side in self.sides if side in EXCITED}
        )
        to_image = nn.Conv2d(widths[resolution], channels, 3, padding=1)
        self.to_image = parametrizations.spectral_norm(to_image)
        #: How many numbers the noise of an image has; 0: it takes none.
        self.noise_size = 0 if options.lite else 2 * sum(side**2 for side in self.sides)

    def forward(self, z: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: float32 ``[N, channels, resolution, resolution]``.

        Args:
            z: ``[N, latent_dim]``; its length does not matter.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.
            noise: N(0, 1), ``[N, noise_size]``, in training; None: none.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        x = like_weights(normalize_2nd_moment(z), self)
        x = F.glu(self.norm(self.start(x[:, :, None, None])), 1)
        maps = {4: x}
        for side, block, of_block in zip(self.sides, self.blocks, self._by_block(noise), strict=True):
            x = checkpointed(block, x, labels, of_block, enabled=self.gradient_checkpointing)
            if side in EXCITED:
                x = self.excitations[str(side)](maps[side // 16], x)
            maps[side] = x
        return self.to_image(x).float() if x.dtype != torch.float64 else self.to_image(x)

    def _by_block(self, noise: Tensor | None) -> list[list[Tensor | None]]:
        layers = [len(block.layers) for block in self.blocks]  # type: ignore[arg-type] # UpBlock has layers
        if noise is None or not self.noise_size:
            return [[None] * count for count in layers]
        parts = iter(noise.split([side**2 for side in self.sides for _ in range(2)], 1))
        return [
            [next(parts).view(-1, 1, side, side) for _ in range(count)]
            for side, count in zip(self.sides, layers, strict=True)
        ]
