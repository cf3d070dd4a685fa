"""Learned style losses: distances of codes that a style encoder gives pictures.

A network that is asked to lower them can also do so by noise that only the encoder sees: judge its pictures by
metrics of another network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gesso.common.ranges import NonNegative
from lightning_modules.losses.contrastive import key_cross_entropy
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.style_head import StyleHead, style_statistics
from lightning_modules.networks.vgg import VGG19


def style_distance(codes: Tensor, others: Tensor) -> Tensor:
    """One minus the cosine of two codes, from 0 (the same style) to 2: float32 or better [N].

    Args:
        codes, others: [N, D] (or of shapes that broadcast: [N, 1, D] and [K, D] give [N, K]), of length 1.
    """
    with torch.autocast(codes.device.type, enabled=False):
        return 1 - (in_full_precision(codes) * in_full_precision(others)).sum(-1)


def style_cross_entropy(
    codes: Tensor, styles: Tensor, own: Tensor | None = None, *, temperature: NonNegative = 0.1
) -> Tensor:
    """Cross-entropy of a classifier whose classes are the pictures of ``styles``: is each result of its own style?

    The classifier is the encoder itself (Wu et al. 2018, arXiv:1805.01978): a class's weights are its picture's code.

    Args:
        codes: of the results, [N, D], of length 1.
        styles: of the style pictures, [K, D], of length 1; no gradient runs to them.
        own: which of these each result should be of, int64 [N]; None: result n of picture n.
        temperature: of the softmax.

    Returns:
        Scalar, float32 or better, a mean over the results: of K equal pictures log K.
    """
    own = torch.arange(len(codes), device=codes.device) if own is None else own
    return key_cross_entropy(codes, styles.detach(), own, temperature=temperature)


def domain_cross_entropy(codes: Tensor, wanted: Tensor, others: Tensor, *, temperature: NonNegative = 0.1) -> Tensor:
    """Cross-entropy of a classifier of two domains: is each result of the wanted one?

    A picture is of a domain with the share that the domain's pictures have in a softmax over those of both, as in
    neighbourhood components analysis (Goldberger et al. 2004): ``-log(sum_j exp(q k_j / t) / sum_i exp(q k_i / t))``
    with j over ``wanted``, i over both.

    Args:
        codes: q, of the results, [N, D], of length 1.
        wanted, others: k, of pictures of the wanted and of the other domain, [K, D] and [L, D], of length 1; no
            gradient runs to them.
        temperature: t.

    Returns:
        Scalar, float32 or better, a mean over the results.
    """
    with torch.autocast(codes.device.type, enabled=False):
        keys = in_full_precision(torch.cat([wanted, others]).detach())
        logits = in_full_precision(codes) @ keys.T / temperature
        return (logits.logsumexp(1) - logits[:, : len(wanted)].logsumexp(1)).mean()


class StyleCodes(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] to codes of their style, float32 or better [N, D] of length 1.

    Args:
        encoder: VGG19 with published weights.
        head: a trained head.
    """

    def __init__(self, encoder: VGG19, head: StyleHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        codes: Tensor = self.head(style_statistics(self.encoder, images))
        return codes
