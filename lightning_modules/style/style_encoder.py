"""A style encoder: codes of pictures by which other parts of the same picture are found, learnt without labels."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, Decay, NonNegative, Positive
from gesso.common.ranks import trained_rows_of_all_ranks
from lightning_modules.core.abilities import BatchSpec
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.embedding import EmbeddingFamily
from lightning_modules.kinds.perceiving import PerceivingFamily
from lightning_modules.losses.contrastive import two_way_nce
from lightning_modules.losses.style_learned import StyleCodes
from lightning_modules.networks.style_head import STATISTICS, StyleHead, StyleHeadOptions, style_statistics
from lightning_modules.pictures.crops import quarters, random_squares


class StyleEncoder(EmbeddingFamily, PerceivingFamily):
    """A head on statistics of VGG19, trained by InfoNCE between two crops of each painting (SimCLR, arXiv:2002.05709).

    A painting's style is what two parts of it have in common: statistics hold no layout, and the head keeps of them
    what tells paintings apart. Negatives are the other paintings of the global batch, whatever the number of ranks;
    with micro-batches, of each micro-batch on all ranks.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        crop_size: side of what crops are brought to.
        smallest_crop, largest_crop: sides of crops, as a share of the image's.
        color_jitter: each crop's channels are multiplied by random numbers within this of 1, and random numbers within
            this of 0 are added; 0: colours count as style.
        temperature: of InfoNCE.
        dropout: share of the statistics that the head does not see, drawn anew for each crop.
        head: options of the head.
        optimizer: options of its optimizer.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: crops that are larger than the image, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(
        self,
        *,
        resolution: Count = 128,
        crop_size: Count = 64,
        smallest_crop: Positive = 0.375,
        largest_crop: Positive = 0.75,
        color_jitter: NonNegative = 0.0,
        temperature: Positive = 0.1,
        dropout: Decay = 0.5,
        head: StyleHeadOptions = StyleHeadOptions(),
        optimizer: OptimizerOptions = OptimizerOptions("adamw", lr=3e-4, weight_decay=0.01),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < smallest_crop <= largest_crop <= 1:
            raise ValueError(
                f"smallest_crop is {smallest_crop} and largest_crop {largest_crop}; they are shares of the image's "
                "side: 0 < smallest <= largest <= 1"
            )
        if not 0 <= dropout < 1 or temperature <= 0 or color_jitter < 0:
            raise ValueError("dropout is from 0 to less than 1, temperature more than 0, color_jitter 0 or more")
        self.save_hyperparameters()
        self.crop_size, self.scales = crop_size, (smallest_crop, largest_crop)
        self.color_jitter, self.temperature, self.dropout = color_jitter, temperature, dropout
        self.optimizer, self.code_dim = optimizer, head.code_dim
        self.head = StyleHead(head)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"head": self.optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("head",)

    def batch_spec(self) -> BatchSpec:
        return BatchSpec(channels=3, resolution=self.hparams["resolution"])

    def codes(self, images: Tensor) -> Tensor:
        """See ``Abilities.codes``: of length 1."""
        return StyleCodes(self.encoder, self.head)(images)

    # ---- training ---------------------------------------------------------------------------------------------------

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("head", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        """InfoNCE both ways between two crops of each image, over the images of all ranks."""
        first, second = (trained_rows_of_all_ranks(self._codes_of_crops(batch["image"])) for _ in range(2))
        if len(first) < 2:
            raise ValueError("InfoNCE tells images apart: set data.global_batch_size to 2 or more per micro-batch")
        return {"loss": two_way_nce(first, second, temperature=self.temperature), "likeness": likeness(first, second)}

    def _codes_of_crops(self, images: Tensor) -> Tensor:
        count = len(images)
        cut = random_squares(images, self.rand(count, 4), size=self.crop_size, scales=self.scales)
        if self.color_jitter:
            gain, bias = (self.color_jitter * (2 * self.rand(count, 2, 3, 1, 1) - 1)).unbind(1)
            cut = (cut * (1 + gain) + bias).clamp(-1, 1)
        with torch.no_grad():
            statistics = style_statistics(self.encoder, cut)
        keep = None
        if self.dropout:
            keep = (self.rand(count, STATISTICS) >= self.dropout).to(statistics) / (1 - self.dropout)
        codes: Tensor = self.head(statistics, keep)
        return codes

    def held_out_losses(self, batch: Batch) -> Losses:
        images = batch["image"]
        if len(images) < 2:
            return {}
        first, second = (self.codes(part) for part in quarters(images)[:, :2].unbind(1))
        return {"loss": two_way_nce(first, second, temperature=self.temperature), "likeness": likeness(first, second)}


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine of codes [N, D] of length 1 that belong together."""
    return (first * second).sum(1).mean()
