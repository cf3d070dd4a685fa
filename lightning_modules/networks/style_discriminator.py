"""A discriminator of patches that is told the style which they should have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.patch_discriminator import PatchDiscriminator, PatchDiscriminatorOptions
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.spectral_norm import add_spectral_norm_
from lightning_modules.networks.style_head import STATISTICS, normalised


class StyleDiscriminator(nn.Module):
    """Logits of a picture's patches: are they of a style picture with these statistics of VGG19?

    The style comes in by a projection (Miyato and Koyama 2018, arXiv:1802.05637): the inner product of a linear map of
    its statistics with each patch's features is added to the patch's logit.

    Args:
        options: of the discriminator of patches.
        channels: of the pictures.
        statistics: how many numbers tell a style; see ``style_head.style_statistics``.
    """

    def __init__(self, options: PatchDiscriminatorOptions, *, channels: int = 3, statistics: int = STATISTICS) -> None:
        super().__init__()
        self.patches = PatchDiscriminator(options, channels=channels)
        self.projection = nn.Linear(statistics, self.patches.width)
        if options.spectral_norm:
            add_spectral_norm_(self.projection)

    def forward(self, images: Tensor, statistics: Tensor) -> Tensor:
        """Logits, float32 (or better) [N, 1, h, w]; positive means real. See ``PatchDiscriminator.forward``.

        Args:
            images: [N, channels, H, W] in [-1, 1].
            statistics: of the style that each should have, [N, statistics], 0 or more.
        """
        features = self.patches.features(images)
        logits = self.patches.logits(features)
        with torch.autocast(features.device.type, enabled=False):
            wanted = in_full_precision(self.projection(normalised(statistics).to(self.projection.weight.dtype)))
            # The places that a logit's convolution sees.
            seen = F.avg_pool2d(in_full_precision(features), 4, stride=1, padding=1)
            return logits + (wanted[:, :, None, None] * seen).sum(1, keepdim=True)
