"""Arbitrary style transfer by adaptive instance normalisation (AdaIN, Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.losses.style import adain, mean_std
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.vgg import VGG19
from lightning_modules.stylize import resize_shares, shares

#: The encoder's layer that is restyled.
LAYER = "relu4_1"


class AdaINTransfer(nn.Module):
    """Encoder and decoder: any picture in any style, in one pass.

    Args:
        encoder: with real weights.
        decoder: a trained one.
    """

    def __init__(self, encoder: VGG19, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @torch.no_grad()
    def stylize(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        weights: Sequence[float] | None = None,
        masks: Tensor | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        """See ``Stylizer``. Several styles are mixed as features: T(c, s_1 ... s_K) = g(Σ w_k AdaIN(f(c), f(s_k)))."""
        share = shares(content, styles, weights, masks, alpha)
        features = self.encoder(content, (LAYER,))[LAYER]
        share = resize_shares(share, (features.shape[2], features.shape[3]))
        target = torch.zeros_like(features)
        for place, style in zip(share, styles, strict=True):
            target += place * adain(features, *mean_std(self.encoder(style, (LAYER,))[LAYER]))
        picture = self.decoder(alpha * target + (1 - alpha) * features)
        # The encoder rounds sides up to multiples of 8.
        return picture[:, :, : content.shape[2], : content.shape[3]].clamp(-1, 1)
