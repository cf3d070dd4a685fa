"""EDM2's U-Net, whose layers keep magnitudes (Karras et al. 2024, arXiv:2312.02696, configuration G)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Share, Whole
from lightning_modules.networks.precision import at_least_float32, weights_dtype
from lightning_modules.networks.unet.magnitudes import (
    SILU_GAIN,
    MPBlock,
    MPConv,
    MPFourier,
    MPStyle,
    sum_gains,
)
from lightning_modules.networks.unet.network import UNet
from lightning_modules.networks.unet.plan import check_heads, check_levels, plan_unet


@dataclass(frozen=True)
class EDM2Options:
    """EDM2's U-Net; the defaults are EDM2-XS. A width of 192 is S, 256 M, 320 L, 384 XL, 448 XXL.

    Args:
        width: channels at full resolution are ``width * multipliers[0]``.
        multipliers: of ``width``, for each level, from full resolution downwards; each level halves the side.
        blocks: blocks of each level of the encoder; the decoder has one more.
        attention_resolutions: sides of the levels with self-attention; the deepest maps always have some.
        head_channels: channels of one head of the attention; narrow networks need fewer than 64.
        dropout: share of the activations that training drops; the authors' is 0.1 from M on.
        logvar_channels: features of the noise level from which ``logvar`` is learned; 0: the network has none.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 128
    multipliers: tuple[Count, ...] = (1, 2, 3, 4)
    blocks: Count = 3
    attention_resolutions: tuple[Count, ...] = (16, 8)
    head_channels: Count = 64
    dropout: Share = 0.0
    logvar_channels: Whole = 128
    gradient_checkpointing: bool = False


class EDM2UNet(UNet):
    """EDM2: no biases and no group norm, unit weights; see ``UNet`` for what it takes and gives.

    The output starts as zeros. Weights grow in training, which lowers the learning rate that they feel; so who trains
    it calls ``normalize_weights_`` after each step of the optimizer.

    Args:
        options: see ``EDM2Options``.
        resolution: side of the images in pixels, a multiple of 2 to the number of halvings.
        in_channels: of the noisy images.
        out_channels: of the output.
        num_classes: classes to condition on; 0 for an unconditional network.
        augment_dim: 0; EDM2 has no augmentation label.

    Raises:
        ValueError: a resolution, attention_resolutions, width or head_channels that do not go together; an augment_dim.
    """

    def __init__(
        self,
        options: EDM2Options = EDM2Options(),
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        num_classes: int = 0,
        augment_dim: int = 0,
    ) -> None:
        if augment_dim:
            raise ValueError(f"EDM2's U-Net takes no augmentation label; set augment_dim to 0, not {augment_dim}")
        check_levels(resolution, options.multipliers, options.attention_resolutions)
        widths = [options.width * multiplier for multiplier in options.multipliers]
        encoder, decoder = plan_unet(
            resolution=resolution,
            stem=widths[0],
            widths=widths,
            blocks=options.blocks,
            attention_resolutions=options.attention_resolutions,
        )
        check_heads([*encoder, *decoder], options.head_channels)
        style = MPStyle(max(widths), options.head_channels, options.dropout)
        super().__init__(
            encoder,
            decoder,
            lambda plan: MPBlock(plan, style),
            num_classes=num_classes,
            augment_dim=augment_dim,
            gradient_checkpointing=options.gradient_checkpointing,
        )
        self.fourier = MPFourier(widths[0])
        self.embed_noise = MPConv(widths[0], style.embedding)
        self.embed_classes = MPConv(num_classes, style.embedding) if num_classes else None
        # One more channel, of ones, does what biases do.
        self.conv_in = MPConv(in_channels + 1, widths[0], 3)
        self.conv_out = MPConv(widths[0], out_channels, 3)
        self.out_gain = nn.Parameter(torch.zeros(1))
        self.logvar_fourier = MPFourier(options.logvar_channels) if options.logvar_channels else None
        self.logvar_linear = MPConv(options.logvar_channels, 1) if options.logvar_channels else None
        self.normalize_weights_()

    def logvar(self, noise: Tensor) -> Tensor:
        """The learned uncertainty u of the loss at noise levels (equation 21): a loss L counts as L / exp(u) + u.

        Args:
            noise: ``[N]``, as in forward.

        Returns:
            ``[N]``, float32, or float64 where the weights are.

        Raises:
            ValueError: the network has none.
        """
        if self.logvar_fourier is None or self.logvar_linear is None:
            raise ValueError("a network without logvar_channels has no learned uncertainty; set logvar_channels=128")
        with torch.autocast(noise.device.type, enabled=False):
            noise = noise.to(at_least_float32(weights_dtype(self)))
            return self.logvar_linear(self.logvar_fourier(noise)).squeeze(1)

    def normalize_weights_(self) -> None:
        """Gives all weights a root mean square of 1 for each output neuron, in place; outputs stay as they are.

        To be called after each step of the optimizer (equation 66, forced weight normalisation).
        """
        for module in self.modules():
            if isinstance(module, MPConv):
                module.normalize_()

    def embed(self, noise: Tensor, classes: Tensor | None, augment: Tensor | None) -> Tensor:
        embedding = self.embed_noise(self.fourier(noise))
        if self.embed_classes is not None and classes is not None:
            of_noise, of_class = sum_gains(0.5)
            of_class *= math.sqrt(self.num_classes)
            embedding = embedding * of_noise + self.embed_classes(classes, gain=of_class)
        return F.silu(embedding) * SILU_GAIN

    def stem(self, x: Tensor) -> Tensor:
        return self.conv_in(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))

    def head(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        return self.conv_out(maps.to(dtype), gain=self.out_gain)
