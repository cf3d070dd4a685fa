"""The losses that StyTr2 and MCCNet share: content and style of a picture, and every picture in its own style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.perceptual import content_loss, normalized_content_loss
from lightning_modules.losses.style import mean_std, statistics_loss

#: The layers whose statistics make the style loss, and whose features the second identity loss.
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
#: Those of the content loss.
CONTENT_LAYERS = LAYERS[3:]


def transfer_terms(
    pictures: Tensor, found: Mapping[str, Tensor], originals: Tensor, wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Content, style and both identity losses (Deng et al. 2022, eqs. 7 to 10).

    Args:
        pictures: [3 N, 3, H, W] in [-1, 1]: N contents in their styles, then the originals, each in its own style.
        found: their features at ``LAYERS``.
        originals: [2 N, 3, H, W] in [-1, 1]: N contents, N styles.
        wanted: their features.

    Returns:
        float32 scalars: ``content``, a sum over relu4_1 and relu5_1; ``style``, a sum over five layers; ``identity``,
        of pixels in [0, 1], the sum of contents' and styles' means; ``identity_features``, likewise, a sum over five
        layers.
    """
    count = len(originals) // 2
    new, same = ({name: rows[part] for name, rows in found.items()} for part in (slice(count), slice(count, None)))
    return {
        "content": _sum(normalized_content_loss(new[name], wanted[name][:count]) for name in CONTENT_LAYERS),
        "style": _sum(statistics_loss(new[name], *mean_std(wanted[name][count:])) for name in LAYERS),
        # Means over contents and styles together are half of the sum of both. Pixels are in [0, 1].
        "identity": 2 * F.mse_loss(pictures[count:], originals) / 4,
        "identity_features": 2 * _sum(content_loss(same[name], wanted[name]) for name in LAYERS),
    }


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
