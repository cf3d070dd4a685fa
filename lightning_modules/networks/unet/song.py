"""Song's U-Nets, DDPM++ and NCSN++ (Song et al. 2021, arXiv:2011.13456), as EDM trains them (Karras et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Share
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.unet.blocks import Attention, BlockStyle, ResidualBlock
from lightning_modules.networks.unet.layers import (
    BOX,
    WIDE,
    Linear,
    filter_kernel,
    position_embedding,
    scaled,
    waves,
)
from lightning_modules.networks.unet.plan import check_levels, plan_unet
from lightning_modules.networks.unet.residual import ResidualUNet

Architecture = Literal["ddpmpp", "ncsnpp"]

#: Factor that keeps the variance of a sum of two maps.
HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class SongOptions:
    """Song's U-Net; the defaults are EDM's for CIFAR-10 (arXiv:2206.00364, table 7).

    Args:
        architecture: ``ddpmpp``: sines of the noise level, box filter; ``ncsnpp``: random Fourier features, a wider
            filter, and the image itself, filtered down, added at each halving of the encoder.
        width: channels at full resolution are ``width * multipliers[0]``.
        multipliers: of ``width``, for each level, from full resolution downwards; each level halves the side.
        blocks: residual blocks of each level of the encoder; the decoder has one more.
        attention_resolutions: sides of the levels with self-attention; the deepest maps always have some.
        dropout: share of the activations that training drops.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    architecture: Architecture = "ddpmpp"
    width: Count = 128
    multipliers: tuple[Count, ...] = (2, 2, 2)
    blocks: Count = 4
    attention_resolutions: tuple[Count, ...] = (16,)
    dropout: Share = 0.13
    gradient_checkpointing: bool = False


class SongUNet(ResidualUNet):
    """DDPM++ or NCSN++; see ``UNet`` for what it takes and gives.

    Args:
        options: see ``SongOptions``.
        resolution: side of the images in pixels, a multiple of 2 to the number of halvings.
        in_channels: of the noisy images.
        out_channels: of the output.
        num_classes: classes to condition on; 0 for an unconditional network.
        augment_dim: length of the augmentation label; 0: there is none.

    Raises:
        ValueError: a resolution, width, attention_resolutions or architecture that do not go together.
    """

    frequencies: Tensor

    def __init__(
        self,
        options: SongOptions = SongOptions(),
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        num_classes: int = 0,
        augment_dim: int = 0,
    ) -> None:
        if options.architecture not in get_args(Architecture):
            raise ValueError(
                f"architecture {options.architecture!r} is unknown; choose one of {', '.join(get_args(Architecture))}"
            )
        check_levels(resolution, options.multipliers, options.attention_resolutions)
        residual = options.architecture == "ncsnpp"
        taps = WIDE if residual else BOX
        width = options.width
        encoder, decoder = plan_unet(
            resolution=resolution,
            stem=width,
            widths=[width * multiplier for multiplier in options.multipliers],
            blocks=options.blocks,
            attention_resolutions=options.attention_resolutions,
            attention_after_each=False,
        )
        style = BlockStyle(
            embedding=4 * width,
            scale_and_shift=False,
            residual_scale=HALF,
            epsilon=1e-6,
            taps=taps,
            project_resampled=True,
            dropout=options.dropout,
        )
        super().__init__(
            encoder,
            decoder,
            style,
            in_channels=in_channels,
            out_channels=out_channels,
            noise_channels=width * (2 if residual else 1),
            num_classes=num_classes,
            augment_dim=augment_dim,
            gradient_checkpointing=options.gradient_checkpointing,
        )
        self.architecture = options.architecture
        self.embed_classes = Linear(num_classes, self.noise_channels) if num_classes else None
        self.embed_augment = Linear(augment_dim, self.noise_channels, bias=False) if augment_dim else None
        # The image's own way down, by the number of the block whose maps it joins.
        self.image_branches = nn.ModuleDict()
        if residual:
            self.register_buffer("frequencies", 16 * torch.randn(self.noise_channels // 2))
            channels = in_channels
            for number, plan in enumerate(encoder):
                if plan.resampling == "down":
                    self.image_branches[str(number)] = ImageBranch(channels, plan.after, taps)
                    channels = plan.after
        _init_(self)

    def embed(self, noise: Tensor, classes: Tensor | None, augment: Tensor | None) -> Tensor:
        if self.architecture == "ncsnpp":
            embedding = waves(noise, 2 * math.pi * self.frequencies.to(noise.dtype))
        else:
            embedding = position_embedding(noise, self.noise_channels, endpoint=True)
        # Sines first, as in DDPM.
        embedding = embedding.roll(self.noise_channels // 2, dims=1)
        if self.embed_classes is not None and classes is not None:
            embedding = embedding + self.embed_classes(classes * math.sqrt(self.num_classes))
        if self.embed_augment is not None and augment is not None:
            embedding = embedding + self.embed_augment(augment)
        return F.silu(self.embed_out(F.silu(self.embed_in(embedding))))

    def encode(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = self.stem(x)
        image, skips = x, [maps]
        for number, block in enumerate(self.encoder):
            maps = checkpointed(block, maps, embedding, enabled=self.gradient_checkpointing)
            if str(number) in self.image_branches:
                image = maps = self.image_branches[str(number)](image, maps)
            skips.append(maps)
        return maps, skips


class ImageBranch(nn.Conv2d):
    """Adds the image, convolved and filtered to half the side, to maps of the encoder (NCSN++'s residual encoder).

    Args:
        in_channels: of the image, or of the last sum where an earlier branch made one.
        out_channels: of the maps.
        taps: of the filter.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, taps: tuple[int, ...]) -> None:
        super().__init__(in_channels, out_channels, 3)
        self.reach = len(taps) - 1
        self.register_buffer("kernel", filter_kernel(taps), persistent=False)

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:  # type: ignore[override]
        """Sum of ``image`` ``[N, in, 2 H, 2 W]``, brought down, and ``maps`` ``[N, out, H, W]``, over sqrt(2)."""
        weight, bias = scaled(self, torch.promote_types(image.dtype, self.weight.dtype), HALF)
        # Convolution and filter as one kernel of 6x6 with stride 2: no map of the full side is kept for backward. The
        # filter is symmetric, so a correlation with it is a convolution.
        single = weight.flatten(0, 1).unsqueeze(1)
        kernel = F.conv2d(single, self.kernel.to(weight.dtype)[None, None], padding=self.reach)
        kernel = kernel.squeeze(1).unflatten(0, weight.shape[:2]).to(image.dtype)
        bias = None if bias is None else bias.to(image.dtype)
        return F.conv2d(image, kernel, bias, stride=2, padding=1 + self.reach // 2).add_(maps, alpha=HALF)


@torch.no_grad()
def _init_(network: SongUNet) -> None:
    """Initialises in place as EDM does: Glorot-uniform weights, and nearly none in what ends a branch."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.conv_out.weight.mul_(1e-5)
        elif isinstance(module, Attention):
            module.to_qkv.weight.mul_(math.sqrt(0.2))
            module.project.weight.mul_(1e-5)
    network.conv_out.weight.mul_(1e-5)
