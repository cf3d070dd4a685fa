"""DCGAN's networks (Radford et al. 2016, arXiv:1511.06434), with the options that GANs have gained since."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Whole
from lightning_modules.networks.attention import check_attention_resolution
from lightning_modules.networks.batch_norm import batch_norm
from lightning_modules.networks.blocks import DownBlock, Normalization, UpBlock, stage_channels
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.folding import fold_scale_
from lightning_modules.networks.initialization import init_dcgan_
from lightning_modules.networks.precision import like_weights
from lightning_modules.networks.projection_discriminator import ProjectionDiscriminator
from lightning_modules.networks.pruning import ChannelGroup
from lightning_modules.networks.spectral_norm import add_spectral_norm_


@dataclass(frozen=True)
class GeneratorOptions:
    """DCGAN's generator.

    Args:
        width: channels of the largest feature map; they double with each halving of the side, up to 8 times ``width``.
        attention_resolution: side of the feature map with self-attention (SAGAN, Zhang et al. 2019); 0: none.
        spectral_norm: divide the weights by their largest singular values (Zhang et al. 2019).
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    attention_resolution: Whole = 0
    spectral_norm: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class DiscriminatorOptions:
    """DCGAN's discriminator.

    Args:
        width: channels of the largest feature map; they double with each halving of the side, up to 8 times ``width``.
        attention_resolution: side of the feature map with self-attention (SAGAN, Zhang et al. 2019); 0: none.
        spectral_norm: divide the weights by their largest singular values (Miyato et al. 2018).
        normalization: ``batch``; ``layer`` where samples must not see each other (WGAN-GP); ``none``. The first
            convolution is never normalised.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    attention_resolution: Whole = 0
    spectral_norm: bool = False
    normalization: Normalization = "batch"
    gradient_checkpointing: bool = False


class DCGANGenerator(nn.Module):
    """Latent vectors to images: a projection to 4x4, then transposed convolutions, batch norm and ReLU.

    Args:
        options: see ``GeneratorOptions``.
        latent_dim: length of z, which is drawn from N(0, 1).
        resolution: side of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        num_classes: classes to condition on, by conditional batch norm; 0 for an unconditional network.

    Raises:
        ValueError: an unsupported resolution, width or attention_resolution.
    """

    def __init__(
        self,
        options: GeneratorOptions = GeneratorOptions(),
        *,
        latent_dim: int = 128,
        resolution: int = 64,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        stages = stage_channels(resolution, options.width)[::-1]
        check_attention_resolution(options.attention_resolution, resolution)
        self.latent_dim = latent_dim
        self.resolution = resolution
        self.num_classes = num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        self.project = nn.Linear(latent_dim, 4 * 4 * stages[0], bias=False)
        self.norm: Any = batch_norm(stages[0], num_classes)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, num_classes=num_classes, attention=options.attention_resolution == 8 * 2**i)
            for i, (before, after) in enumerate(pairwise(stages))
        )
        self.to_image = nn.ConvTranspose2d(stages[-1], channels, 4, stride=2, padding=1)
        init_dcgan_(self)
        if options.spectral_norm:
            add_spectral_norm_(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of latents.

        Args:
            z: ``[N, latent_dim]``.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Returns:
            float32 ``[N, channels, resolution, resolution]`` in [-1, 1].

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        # Read as NHWC, which is the same to weights drawn alike, and so in channels-last memory without a copy.
        x = self.project(like_weights(z, self)).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        x = F.relu(self.norm(x) if labels is None else self.norm(x, labels), inplace=True)
        for block in self.blocks:
            x = checkpointed(block, x, labels, enabled=self.gradient_checkpointing)
        return torch.tanh(self.to_image(x).float())

    def channel_groups(self) -> list[ChannelGroup]:
        """See ``pruning``: the channels of each map, which a layer makes, a norm scales and the next layer takes in.

        Raises:
            ValueError: with attention or spectral norm; one line.
        """
        names = self.state_dict().keys()
        if odd := [name for name in names if "attention" in name or "parametrizations" in name]:
            raise ValueError(f"{odd[0]}: a generator with attention or spectral norm cannot be pruned")
        # Rows of the projection are 4 x 4 places of all channels.
        layers = [("project", 0), *((f"blocks.{number}.convolution", 1) for number in range(len(self.blocks)))]
        norms = ["norm", *(f"blocks.{number}.norm" for number in range(len(self.blocks)))]
        groups = []
        for (layer, dim), norm, (after, _) in zip(layers, norms, [*layers[1:], ("to_image", 1)], strict=True):
            scales = ("scale", "shift") if self.num_classes else ("weight", "bias")
            places = {f"{norm}.{name}": int(self.num_classes > 0) for name in scales}
            places |= {f"{norm}.{name}": 0 for name in ("running_mean", "running_var")}
            groups.append(ChannelGroup({f"{layer}.weight": dim, f"{after}.weight": 0, **places}))
        return groups

    def fold_(self) -> None:
        """See ``folding``."""
        if self.num_classes:
            return
        # Its features are 4 x 4 places of all channels.
        fold_scale_(self.project, *(each.repeat(4 * 4) for each in self.norm.scale_and_shift()))
        self.norm = nn.Identity()


class DCGANDiscriminator(ProjectionDiscriminator):
    """Images to logits: strided convolutions, normalisation and LeakyReLU down to 4x4, then one 4x4 convolution.

    With classes it is a projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637): the inner product of the
    label's embedding with the features, summed over their pixels, is added to the logit.

    Args:
        options: see ``DiscriminatorOptions``.
        resolution: side of the images in pixels: 32, 64, 128 or 256.
        channels: 1 (grey) or 3 (RGB).
        num_classes: classes to condition on; 0 for an unconditional network.

    Raises:
        ValueError: an unsupported resolution, width, attention_resolution or normalization.
    """

    def __init__(
        self,
        options: DiscriminatorOptions = DiscriminatorOptions(),
        *,
        resolution: int = 64,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        stages = stage_channels(resolution, options.width)
        check_attention_resolution(options.attention_resolution, resolution)
        self.resolution = resolution
        self.num_classes = num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        self.blocks = nn.ModuleList(
            DownBlock(
                before,
                after,
                normalization=options.normalization if i else "none",
                attention=options.attention_resolution == resolution // 2 ** (i + 1),
            )
            for i, (before, after) in enumerate(pairwise([channels, *stages]))
        )
        self.to_logit = nn.Conv2d(stages[-1], 1, 4)
        self.embedding = nn.Embedding(num_classes, stages[-1]) if num_classes else None
        init_dcgan_(self)
        if options.spectral_norm:
            add_spectral_norm_(self)

    def head(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        """See ``ProjectionDiscriminator``."""
        logits = self.to_logit(x).flatten()
        return logits if embedded is None else logits + (embedded * x.sum((2, 3))).sum(1)
