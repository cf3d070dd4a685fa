"""Contrastive losses: what belongs together is alike, and unlike the rest (InfoNCE, van den Oord et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision


def info_nce(queries: Tensor, keys: Tensor, *, temperature: float = 0.1) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv:1807.03748): each query finds its own key among the others' keys.

    The mean over rows s (and N) of ``-log(exp(q_s k_s / t) / sum_j exp(q_s k_j / t))``. Of S equal rows it is log S.

    Args:
        queries: [S, D] or [N, S, D], of length 1.
        keys: of the same shape and length: row s belongs to query s; the N are apart from each other.
        temperature: t.

    Returns:
        Scalar, float32 or better.

    Raises:
        ValueError: shapes that differ.
    """
    if queries.shape != keys.shape or queries.dim() not in (2, 3):
        raise ValueError(
            f"queries and keys are [S, D] or [N, S, D], alike; got {list(queries.shape)} and {list(keys.shape)}"
        )
    own = torch.arange(keys.shape[-2], device=queries.device).expand(queries.shape[:-1])
    return key_cross_entropy(queries, keys, own, temperature=temperature)


def key_cross_entropy(queries: Tensor, keys: Tensor, own: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of finding each query's own key o among all keys.

    The mean over queries s of ``-log(exp(q_s k_o / t) / sum_j exp(q_s k_j / t))``.

    Args:
        queries: [..., S, D].
        keys: [..., K, D].
        own: int64 [..., S] in [0, K).
        temperature: t.

    Returns:
        Scalar, float32 or better.
    """
    with torch.autocast(queries.device.type, enabled=False):
        logits = in_full_precision(queries) @ in_full_precision(keys).mT / temperature
        return F.cross_entropy(logits.flatten(0, -2), own.flatten())


def two_way_nce(first: Tensor, second: Tensor, *, temperature: float = 0.1) -> Tensor:
    """The mean of ``info_nce`` of first to second and of second to first, [S, D] each; both have a gradient."""
    forth = info_nce(first, second, temperature=temperature)
    return 0.5 * (forth + info_nce(second, first, temperature=temperature))


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
    return info_nce(queries, keys.detach(), temperature=temperature)
