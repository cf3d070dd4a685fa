"""ADM's U-Net (Dhariwal & Nichol 2021, arXiv:2105.05233), as EDM trains it (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Share
from lightning_modules.networks.unet.blocks import Attention, BlockStyle, ResidualBlock
from lightning_modules.networks.unet.layers import Linear, position_embedding
from lightning_modules.networks.unet.plan import check_heads, check_levels, plan_unet
from lightning_modules.networks.unet.residual import ResidualUNet


@dataclass(frozen=True)
class ADMOptions:
    """ADM's U-Net; the defaults are those for ImageNet at 64 px (EDM, table 7).

    Args:
        width: channels at full resolution are ``width * multipliers[0]``.
        multipliers: of ``width``, for each level, from full resolution downwards; each level halves the side.
        blocks: residual blocks of each level of the encoder; the decoder has one more.
        attention_resolutions: sides of the levels with self-attention; the deepest maps always have some.
        head_channels: channels of one head of the attention; narrow networks need fewer than 64.
        dropout: share of the activations that training drops.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 192
    multipliers: tuple[Count, ...] = (1, 2, 3, 4)
    blocks: Count = 3
    attention_resolutions: tuple[Count, ...] = (32, 16, 8)
    head_channels: Count = 64
    dropout: Share = 0.1
    gradient_checkpointing: bool = False


class ADM(ResidualUNet):
    """ADM: embeddings scale and shift, attention has several heads; see ``UNet`` for what it takes and gives.

    The output starts as zeros.

    Args:
        options: see ``ADMOptions``.
        resolution: side of the images in pixels, a multiple of 2 to the number of halvings.
        in_channels: of the noisy images.
        out_channels: of the output.
        num_classes: classes to condition on; 0 for an unconditional network.
        augment_dim: length of the augmentation label; 0: there is none.

    Raises:
        ValueError: a resolution, width, attention_resolutions or head_channels that do not go together.
    """

    def __init__(
        self,
        options: ADMOptions = ADMOptions(),
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        num_classes: int = 0,
        augment_dim: int = 0,
    ) -> None:
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
        style = BlockStyle(
            embedding=4 * options.width,
            scale_and_shift=True,
            head_channels=options.head_channels,
            dropout=options.dropout,
        )
        super().__init__(
            encoder,
            decoder,
            style,
            in_channels=in_channels,
            out_channels=out_channels,
            noise_channels=options.width,
            num_classes=num_classes,
            augment_dim=augment_dim,
            gradient_checkpointing=options.gradient_checkpointing,
        )
        self.embed_classes = Linear(num_classes, style.embedding, bias=False) if num_classes else None
        self.embed_augment = Linear(augment_dim, options.width, bias=False) if augment_dim else None
        _init_(self)

    def embed(self, noise: Tensor, classes: Tensor | None, augment: Tensor | None) -> Tensor:
        embedding = position_embedding(noise, self.noise_channels, endpoint=False)
        if self.embed_augment is not None and augment is not None:
            embedding = embedding + self.embed_augment(augment)
        embedding = self.embed_out(F.silu(self.embed_in(embedding)))
        if self.embed_classes is not None and classes is not None:
            embedding = embedding + self.embed_classes(classes)
        return F.silu(embedding)


def _init_(network: ADM) -> None:
    """Initialises in place as EDM does: uniform weights as torch's, zeros where branches end, N(0, 1) for classes."""
    ends: list[nn.Linear | nn.Conv2d] = [network.conv_out]
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            ends.append(module.conv_out)
        elif isinstance(module, Attention):
            ends.append(module.project)
    for layer in ends:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if network.embed_augment is not None:
        nn.init.zeros_(network.embed_augment.weight)
    if network.embed_classes is not None:
        nn.init.normal_(network.embed_classes.weight)
