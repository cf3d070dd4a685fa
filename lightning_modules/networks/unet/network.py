"""What the U-Nets of diffusion models and flows have in common: what they take, what they give, and the way between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import one_hot, required_labels
from lightning_modules.networks.precision import at_least_float32, inner_dtype, weights_dtype
from lightning_modules.networks.unet.plan import BlockPlan


class UNet(nn.Module):
    """Base of the U-Nets; a subclass has the embedding (``embed``) and the first and last layers (``stem``, ``head``).

    Embeddings and the output are computed in fp32 at least, the maps between in autocast's precision where it is on.
    No batch statistics: images do not see each other. Forward changes nothing in the network.

    Args:
        encoder: plans of the blocks whose results the decoder takes.
        decoder: plans of the decoder's blocks.
        make_block: a block of a plan, to be called as ``block(maps, embedding)``, or as
            ``block(maps, embedding, skip)`` where the plan has a skip.
        num_classes: classes to condition on; 0 for an unconditional network.
        augment_dim: length of the augmentation label (EDM: 9); 0: there is none.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    def __init__(
        self,
        encoder: Sequence[BlockPlan],
        decoder: Sequence[BlockPlan],
        make_block: Callable[[BlockPlan], nn.Module],
        *,
        num_classes: int,
        augment_dim: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(map(make_block, encoder))
        self.decoder = nn.ModuleList(map(make_block, decoder))
        self.takes_skip = [plan.skip > 0 for plan in decoder]
        self.num_classes = num_classes
        self.augment_dim = augment_dim
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """The network's raw output F, which a family turns into clean images, noise or a velocity.

        Args:
            x: noisy images ``[N, in_channels, H, W]``, scaled to a variance of 1 (EDM: c_in times the images).
            noise: ``[N]``, the noise level as the network is told it (EDM: c_noise = ln(sigma) / 4).
            labels: int64 ``[N]`` in [0, num_classes], where ``num_classes`` means "no class"; ignored by an
                unconditional network.
            augment: ``[N, augment_dim]``, what augmentation did to the images; None: nothing, which is all zeros.

        Returns:
            ``[N, out_channels, H, W]``, float32, or float64 where the weights are.

        Raises:
            ValueError: a conditional network got no labels; an augmentation label that the network has no room for.
        """
        labels = required_labels(labels, self.num_classes)
        if augment is not None and not self.augment_dim:
            raise ValueError("a network without augment_dim got an augmentation label; set augment_dim to its length")
        maps_dtype = inner_dtype(self, x.device)
        dtype = at_least_float32(weights_dtype(self))
        with torch.autocast(x.device.type, enabled=False):
            embedding = self.embed(
                noise.to(dtype),
                None if labels is None else one_hot(labels, self.num_classes, dtype),
                None if augment is None else augment.to(dtype),
            )
            maps, skips = self.encode(x.to(maps_dtype), embedding)
            for block, takes_skip in zip(self.decoder, self.takes_skip, strict=True):
                inputs = (maps, embedding, skips.pop()) if takes_skip else (maps, embedding)
                maps = checkpointed(block, *inputs, enabled=self.gradient_checkpointing)
            return self.head(maps, dtype)

    def encode(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder's last maps, and all that the decoder takes, in the order in which they were made."""
        maps = self.stem(x)
        skips = [maps]
        for block in self.encoder:
            maps = checkpointed(block, maps, embedding, enabled=self.gradient_checkpointing)
            skips.append(maps)
        return maps, skips

    def embed(self, noise: Tensor, classes: Tensor | None, augment: Tensor | None) -> Tensor:
        """The blocks' embedding ``[N, E]`` of noise levels ``[N]``, one-hot classes and augmentation labels."""
        raise NotImplementedError

    def stem(self, x: Tensor) -> Tensor:
        """The encoder's first maps, of images."""
        raise NotImplementedError

    def head(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        """The output in a dtype, of the decoder's last maps."""
        raise NotImplementedError
