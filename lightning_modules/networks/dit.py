"""The diffusion transformer: DiT (Peebles and Xie 2022, arXiv:2212.09748), SiT (Ma et al. 2024, arXiv:2401.08740)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.dit_blocks import (
    DiTBlock,
    DiTOutput,
    TimeEmbedding,
    TokenNorm,
    grid_positions,
    rotary_angles,
)
from lightning_modules.networks.precision import like_weights


@dataclass(frozen=True)
class DiTOptions:
    """The diffusion transformer. The defaults are DiT-S/2.

    ========= ===== ===== =====
    size      depth width heads
    ========= ===== ===== =====
    DiT-S      12    384    6
    DiT-B      12    768   12
    DiT-L      24   1024   16
    DiT-XL     28   1152   16
    ========= ===== ===== =====

    Args:
        depth: number of blocks.
        width: numbers of a token, a multiple of ``heads`` and of 4.
        heads: of the attention.
        patch: side of the square of pixels that becomes one token; 2 is DiT-*/2, 4 is DiT-*/4.
        mlp_ratio: hidden numbers of a block's MLP for each number of a token.
        norm: of tokens: ``layer`` as in the paper, or ``rms``.
        qk_norm: normalise queries and keys: attention stays stable in large or long trainings.
        rope: rotary positions in two dimensions instead of fixed ones; needs a multiple of 4 numbers a head.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    depth: Count = 12
    width: Count = 384
    heads: Count = 6
    patch: Count = 2
    mlp_ratio: Positive = 4.0
    norm: TokenNorm = "layer"
    qk_norm: bool = False
    rope: bool = False
    gradient_checkpointing: bool = False


class DiT(nn.Module):
    """Noisy images (or latents) and their time to images: a transformer over patches, with adaLN-zero conditioning.

    It starts with an output of 0. In ``torch.compile`` each block is compiled by itself, as one graph.

    Args:
        options: see ``DiTOptions``.
        resolution: height and width of the images, a multiple of ``patch``.
        in_channels: of the images.
        out_channels: of the output; DiT's learned variances double ``in_channels``.
        num_classes: classes to condition on; 0 for an unconditional network.

    Raises:
        ValueError: options that do not fit each other, or the resolution; names them.
    """

    positions: Tensor | None
    rotation: Tensor | None

    def __init__(
        self,
        options: DiTOptions = DiTOptions(),
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        _check(options, resolution)
        width, side = options.width, resolution // options.patch
        self.resolution, self.patch = resolution, options.patch
        self.in_channels, self.out_channels, self.num_classes = in_channels, out_channels, num_classes
        self.gradient_checkpointing = options.gradient_checkpointing
        self.to_tokens = nn.Conv2d(in_channels, width, options.patch, stride=options.patch)
        self.time = TimeEmbedding(width)
        # One more: "no class", for guidance without a classifier.
        self.classes = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.blocks = nn.ModuleList(
            DiTBlock(width, options.heads, mlp_ratio=options.mlp_ratio, norm=options.norm, qk_norm=options.qk_norm)
            for _ in range(options.depth)
        )
        self.to_patches = DiTOutput(width, options.patch**2 * out_channels, norm=options.norm)
        positions = None if options.rope else grid_positions(side, width)
        rotation = rotary_angles(side, width // options.heads) if options.rope else None
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("rotation", rotation, persistent=False)
        self._initialize()

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """The network's output for noisy images.

        Args:
            x: ``[N, in_channels, resolution, resolution]``.
            noise: ``[N]``: the time or noise level, in whatever unit the family uses; the frequencies suit [0, 1000].
            labels: int64 ``[N]`` in [0, num_classes]; ``num_classes`` itself means "no class". Ignored by an
                unconditional network.
            augment: must be None.

        Returns:
            ``[N, out_channels, resolution, resolution]``, float32 or better.

        Raises:
            ValueError: a conditional network got no labels, or ``augment`` is given.
        """
        if augment is not None:
            raise ValueError("a DiT takes no augmentation labels; set the family's augmentation to none")
        labels = required_labels(labels, self.num_classes)
        # Under autocast too, blocks add to tokens in the weights' precision.
        tokens = like_weights(self.to_tokens(like_weights(x, self)), self).flatten(2).transpose(1, 2)
        if self.positions is not None:
            tokens = tokens + self.positions
        condition = self.time(noise)
        if self.classes is not None:
            condition = condition + self.classes(labels)
        for block in self.blocks:
            tokens = checkpointed(block, tokens, condition, self.rotation, enabled=self.gradient_checkpointing)
        return self._picture(self.to_patches(tokens, condition))

    def compile(self, *arguments: object, **options: object) -> None:
        """Compiles each block as one graph instead of the whole: minutes less, and all blocks share what is compiled.

        Args:
            arguments, options: those of ``torch.compile``.
        """
        for block in self.blocks:
            block.compile(*arguments, **{**options, "fullgraph": True})

    def _picture(self, patches: Tensor) -> Tensor:
        """``[N, T, patch * patch * C] -> [N, C, H, W]``, float32 or better."""
        side = self.resolution // self.patch
        picture = patches.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (side, side))  # [N, h, w, p, q, C]
        picture = picture.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, self.resolution, self.resolution)
        return picture.to(torch.promote_types(picture.dtype, torch.float32))

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # As if it were a linear layer of the patch.
        nn.init.xavier_uniform_(self.to_tokens.weight.view(self.to_tokens.out_channels, -1))
        assert self.to_tokens.bias is not None
        nn.init.zeros_(self.to_tokens.bias)
        embeddings = [self.time.first.weight, self.time.second.weight]
        if self.classes is not None:
            embeddings.append(self.classes.weight)
        for embedding in embeddings:
            nn.init.normal_(embedding, std=0.02)
        # adaLN-zero: the gates are closed, and nothing comes out.
        modulations = [module.modulation for module in self.modules() if isinstance(module, DiTBlock | DiTOutput)]
        for layer in [*modulations, self.to_patches.linear]:
            nn.init.zeros_(layer.weight)


def _check(options: DiTOptions, resolution: int) -> None:
    width, heads, patch = options.width, options.heads, options.patch
    if width % heads or width % 4:
        raise ValueError(f"width {width} must be a multiple of 4 and of heads ({heads}): choose another width")
    if options.rope and width // heads % 4:
        raise ValueError(
            f"rope needs heads of a multiple of 4 numbers, not width {width} / heads {heads} = {width // heads}"
        )
    if resolution < patch or resolution % patch:
        raise ValueError(f"resolution {resolution} is no multiple of patch {patch}: choose another patch")
