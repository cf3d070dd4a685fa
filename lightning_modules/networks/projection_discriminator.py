"""The frame of discriminators that are told the class by a projection (Miyato & Koyama 2018, arXiv:1802.05637)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import in_full_precision, like_weights, weights_dtype


class ProjectionDiscriminator(nn.Module):
    """Images to logits: blocks, then a head in the parameters' own precision.

    With classes, the inner product of the label's embedding with the features, summed over their pixels, is added to
    the logit. Subclasses set the attributes below.
    """

    num_classes: int
    gradient_checkpointing: bool
    blocks: nn.ModuleList
    #: A row for each class; None: unconditional.
    embedding: nn.Embedding | None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images; positive means real.

        Args:
            images: ``[N, channels, resolution, resolution]`` in [-1, 1].
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Returns:
            At least float32 ``[N]``.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        x = like_weights(images, self)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        # A bfloat16 logit near 100 could only move in steps of a half.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(weights_dtype(self))
            embedded = None if self.embedding is None else self.embedding(labels)
            return in_full_precision(self.head(x, embedded))

    @abstractmethod
    def head(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        """Features ``[N, C, h, w]`` and the labels' embedding ``[N, C]``, if there are classes, to logits ``[N]``."""
