"""A loss that keeps all experts of a mixture at work."""

from __future__ import annotations

import torch
from torch import Tensor


def load_balance_loss(probabilities: Tensor, load: Tensor) -> Tensor:
    """E Σ f_e p_e of the Switch Transformer (Fedus et al. 2021, arXiv:2101.03961, eq. 4), without its factor alpha.

    It is 1 where all experts are chosen alike, and E where one is chosen always and for certain. The loads have no
    gradient; as the loss is linear in the probabilities, ranks that share the loads average to the loss of the whole
    batch.

    Args:
        probabilities: a gate's, [N, E] with sums of 1.
        load: f, the share of each expert in all choices of the global batch: [E] with a sum of 1.

    Returns:
        Scalar, float32 or better.
    """
    with torch.autocast(probabilities.device.type, enabled=False):
        return len(load) * (load.detach() * probabilities.mean(0)).sum()
