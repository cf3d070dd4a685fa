"""BigGAN's networks (Brock et al. 2019, arXiv:1809.11096): residual, under spectral norm, each norm told the class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Whole
from lightning_modules.networks.attention import SelfAttention, check_attention_resolution
from lightning_modules.networks.batch_norm import BatchNorm2d, batch_norm
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.initialization import init_dcgan_, init_orthogonal_
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.networks.projection_discriminator import ProjectionDiscriminator
from lightning_modules.networks.spectral_norm import add_spectral_norm_

#: Channels of the generator's maps of sides 4, 8, ... in multiples of the width, by the pictures' side.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
#: Those that the discriminator's blocks give. All but the last halve the side; at 32 px but the last two.
DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
#: ``orthogonal``: the paper's for ImageNet; ``normal``: N(0, 0.02), the authors' for CIFAR-10.
Initialization = Literal["orthogonal", "normal"]


@dataclass(frozen=True)
class BigGANGeneratorOptions:
    """BigGAN's generator.

    Args:
        width: channels, of which each map has a multiple (``GENERATOR_WIDTHS``).
        shared_dim: length of one embedding of the class from which every norm computes its scale and shift; 0: each
            norm has scales and shifts of its own for every class.
        hierarchical: split z into equal parts, the first one for the beginning, the others for the norms of a block
            each.
        attention_resolution: side of the feature map with self-attention; 0: none.
        spectral_norm: divide the weights, but not the embedding's, by their largest singular values.
        initialization: see ``Initialization``.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    shared_dim: Whole = 128
    hierarchical: bool = True
    attention_resolution: Whole = 0
    spectral_norm: bool = True
    initialization: Initialization = "orthogonal"
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class BigGANDiscriminatorOptions:
    """BigGAN's discriminator.

    Args:
        width: channels, of which each map has a multiple (``DISCRIMINATOR_WIDTHS``).
        attention_resolution: side of the feature map with self-attention; 0: none.
        spectral_norm: divide the weights by their largest singular values.
        initialization: see ``Initialization``.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    attention_resolution: Whole = 0
    spectral_norm: bool = True
    initialization: Initialization = "orthogonal"
    gradient_checkpointing: bool = False


class VectorBatchNorm2d(BatchNorm2d):
    """Batch norm whose scale, 1 + A y, and shift, B y, are linear in a vector y.

    Args:
        features: C.
        vector: length of y.
    """

    def __init__(self, features: int, vector: int) -> None:
        super().__init__(features, affine=False)
        self.scale = nn.Linear(vector, features, bias=False)
        self.shift = nn.Linear(vector, features, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """Normalises ``x`` ``[N, C, H, W]`` by ``y`` ``[N, vector]``."""
        x = super().forward(x)
        scale = (1 + self.scale(y)).to(x.dtype)[:, :, None, None]
        return torch.addcmul(self.shift(y).to(x.dtype)[:, :, None, None], x, scale)


class UpResidual(nn.Module):
    """Doubles the side: twice norm, ReLU and convolution, beside a 1x1 convolution; optional self-attention.

    Args:
        in_channels, out_channels: of the maps.
        vector: length of the vector that the norms are told; 0: they are told labels, or nothing.
        num_classes: of these labels.
        attention: whether self-attention follows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, vector: int, num_classes: int, attention: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            VectorBatchNorm2d(features, vector) if vector else batch_norm(features, num_classes)
            for features in (in_channels, out_channels)
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, out_channels, 3, padding=1) for before in (in_channels, out_channels)
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """``[N, in, H, W] -> [N, out, 2H, 2W]``; ``y``: what the norms are told."""
        told = () if y is None else (y,)
        h = F.interpolate(F.relu(self.norms[0](x, *told), inplace=True), scale_factor=2.0)
        h = self.convolutions[0](h)
        h = self.convolutions[1](F.relu(self.norms[1](h, *told), inplace=True))
        # A 1x1 convolution before it is doubled is the same as after it, at a quarter of the work.
        return self.attention(h + F.interpolate(self.shortcut(x), scale_factor=2.0))


class DownResidual(nn.Module):
    """Twice ReLU and convolution, beside the map itself or a 1x1 convolution of it; differentiable twice.

    Args:
        in_channels, out_channels: of the maps.
        halves: whether the side is halved, by an average.
        first: the block takes pictures: it does not begin with a ReLU.
        attention: whether self-attention follows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, halves: bool, first: bool, attention: bool) -> None:
        super().__init__()
        self.halves, self.first = halves, first
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, out_channels, 3, padding=1) for before in (in_channels, out_channels)
        )
        same = in_channels == out_channels and not halves
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels, double_backward=True) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W] -> [N, out, H, W]``, or half of H and W."""
        h = self.convolutions[0](x if self.first else F.relu(x))
        h = self.convolutions[1](F.relu(h, inplace=True))
        # An average and a 1x1 convolution may change places.
        x = self.shortcut(F.avg_pool2d(x, 2) if self.halves else x)
        return self.attention((F.avg_pool2d(h, 2) if self.halves else h) + x)


class BigGANGenerator(nn.Module):
    """Latent vectors to images: a projection to 4x4, then residual blocks that double the side.

    Args:
        options: see ``BigGANGeneratorOptions``.
        latent_dim: length of z, drawn from N(0, 1); a multiple of the number of its parts if it is ``hierarchical``.
        resolution: side of the images in pixels: see ``GENERATOR_WIDTHS``.
        channels: 1 (grey) or 3 (RGB).
        num_classes: classes to condition on; 0 for an unconditional network.

    Raises:
        ValueError: an unsupported resolution or attention_resolution; a z that cannot be split; a hierarchical z for
            norms with a table of classes.
    """

    def __init__(
        self,
        options: BigGANGeneratorOptions = BigGANGeneratorOptions(),
        *,
        latent_dim: int = 120,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        widths = _widths(GENERATOR_WIDTHS, resolution, options.width)
        check_attention_resolution(options.attention_resolution, resolution)
        self.parts = len(widths) if options.hierarchical else 1
        if latent_dim % self.parts:
            raise ValueError(
                f"latent_dim is {latent_dim}; a hierarchical z of {resolution} px images has {self.parts} equal parts: "
                f"choose a multiple of {self.parts}"
            )
        if options.hierarchical and num_classes and not options.shared_dim:
            raise ValueError("a hierarchical z needs an embedding that all norms share: set generator.shared_dim")
        part = latent_dim // self.parts
        shared = options.shared_dim if num_classes else 0
        vector = shared + (part if options.hierarchical else 0)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        self.project = nn.Linear(part, 4 * 4 * widths[0])
        self.blocks = nn.ModuleList(
            UpResidual(
                before,
                after,
                vector=vector,
                num_classes=num_classes,
                attention=options.attention_resolution == 8 * 2**number,
            )
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.norm = BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize_(self, options.initialization)
        if options.spectral_norm:
            add_spectral_norm_(self)
        # Under spectral norm, the authors say, it cripples a generator.
        self.embedding = nn.Embedding(num_classes, shared) if shared else None
        if self.embedding is not None:
            initialize_(self.embedding, options.initialization)

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
        first, *others = like_weights(z, self).chunk(self.parts, 1)
        told = labels if labels is None or self.embedding is None else self.embedding(labels)
        x = self.project(first).unflatten(1, (-1, 4, 4))
        for number, block in enumerate(self.blocks):
            own = told
            if others:
                own = others[number] if told is None else torch.cat([told, others[number]], 1)
            x = checkpointed(block, x, own, enabled=self.gradient_checkpointing)
        return torch.tanh(in_full_precision(self.to_image(F.relu(self.norm(x), inplace=True))))


class BigGANDiscriminator(ProjectionDiscriminator):
    """Images to logits: residual blocks, a sum over the pixels, a linear layer, and the projection onto the class.

    Args:
        options: see ``BigGANDiscriminatorOptions``.
        resolution: side of the images in pixels: see ``DISCRIMINATOR_WIDTHS``.
        channels: 1 (grey) or 3 (RGB).
        num_classes: classes to condition on; 0 for an unconditional network.

    Raises:
        ValueError: an unsupported resolution or attention_resolution.
    """

    def __init__(
        self,
        options: BigGANDiscriminatorOptions = BigGANDiscriminatorOptions(),
        *,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        widths = _widths(DISCRIMINATOR_WIDTHS, resolution, options.width)
        check_attention_resolution(options.attention_resolution, resolution)
        self.num_classes = num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        halvings = 2 if resolution == 32 else len(widths) - 1
        self.blocks = nn.ModuleList(
            DownResidual(
                before,
                after,
                halves=number < halvings,
                first=number == 0,
                attention=number < halvings and options.attention_resolution == resolution // 2 ** (number + 1),
            )
            for number, (before, after) in enumerate(pairwise([channels, *widths]))
        )
        self.to_logit = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        initialize_(self, options.initialization)
        if options.spectral_norm:
            add_spectral_norm_(self)

    def head(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        """See ``ProjectionDiscriminator``."""
        features = F.relu(x).sum((2, 3))
        logits = self.to_logit(features).flatten()
        return logits if embedded is None else logits + (embedded * features).sum(1)


def initialize_(network: nn.Module, kind: Initialization) -> None:
    """Initialises in place: see ``Initialization``."""
    if kind == "orthogonal":
        init_orthogonal_(network)
    else:
        init_dcgan_(network)


def _widths(table: dict[int, tuple[int, ...]], resolution: int, width: int) -> list[int]:
    if resolution not in table:
        raise ValueError(f"resolution {resolution} is not supported; choose one of {', '.join(map(str, table))}")
    return [width * multiple for multiple in table[resolution]]
