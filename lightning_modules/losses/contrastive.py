"""Contrastive losses: what belongs together is alike, and unlike the rest (InfoNCE, van den Oord et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision


def patch_nce(queries: Tensor, keys: Tensor, *, temperature: float = 0.07) -> Tensor:
    """PatchNCE (Park et al. 2020, arXiv:2007.15651): each place of a picture finds itself among the others of it.

    The mean over places s and pictures of ``-log(exp(q_s k_s / t) / sum_j exp(q_s k_j / t))``; other pictures' places
    are no negatives. No gradient runs to the keys. Of S equal places it is log S.

    Args:
        queries: [N, S, D], of length 1: places of the pictures that were made.
        keys: [N, S, D], of length 1: the same places of the pictures that they were made of.
        temperature: t.

    Returns:
        Scalar, float32 or better.

    Raises:
        ValueError: shapes that differ.
    """
    if queries.shape != keys.shape or queries.dim() != 3:
        raise ValueError(f"queries and keys are [N, S, D], alike; got {list(queries.shape)} and {list(keys.shape)}")
    with torch.autocast(queries.device.type, enabled=False):
        found, wanted = in_full_precision(queries), in_full_precision(keys.detach())
        logits = found @ wanted.mT / temperature
        own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        return F.cross_entropy(logits.flatten(0, 1), own.flatten())
