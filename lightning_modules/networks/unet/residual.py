"""What Song's U-Net and ADM share: residual blocks between two convolutions, an embedding of two layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.unet.blocks import BlockStyle, ResidualBlock
from lightning_modules.networks.unet.layers import Conv2d, GroupNorm, Linear
from lightning_modules.networks.unet.network import UNet
from lightning_modules.networks.unet.plan import BlockPlan, check_groups


class ResidualUNet(UNet):
    """Base of the U-Nets of residual blocks; subclasses embed and initialise.

    Args:
        encoder: plans of the blocks whose results the decoder takes.
        decoder: plans of the decoder's blocks.
        style: of all blocks.
        in_channels: of the noisy images.
        out_channels: of the output.
        noise_channels: length of the noise level's features, from which the embedding is made.
        num_classes, augment_dim, gradient_checkpointing: as of ``UNet``.

    Raises:
        ValueError: channels that group norm cannot share among its groups.
    """

    def __init__(
        self,
        encoder: Sequence[BlockPlan],
        decoder: Sequence[BlockPlan],
        style: BlockStyle,
        *,
        in_channels: int,
        out_channels: int,
        noise_channels: int,
        num_classes: int,
        augment_dim: int,
        gradient_checkpointing: bool,
    ) -> None:
        check_groups([*encoder, *decoder])
        super().__init__(
            encoder,
            decoder,
            lambda plan: ResidualBlock(plan, style),
            num_classes=num_classes,
            augment_dim=augment_dim,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.noise_channels = noise_channels
        self.embed_in = Linear(noise_channels, style.embedding)
        self.embed_out = Linear(style.embedding, style.embedding)
        self.conv_in = Conv2d(in_channels, encoder[0].before, 3)
        self.norm_out = GroupNorm(decoder[-1].after, style.epsilon)
        self.conv_out = Conv2d(decoder[-1].after, out_channels, 3)

    def stem(self, x: Tensor) -> Tensor:
        return self.conv_in(x)

    def head(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        return self.conv_out(F.silu(self.norm_out(maps)).to(dtype))
