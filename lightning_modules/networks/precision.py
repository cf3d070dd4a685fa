"""Inputs in the precision of a network's weights."""

from __future__ import annotations

from torch import Tensor, nn


def like_weights(x: Tensor, network: nn.Module) -> Tensor:
    """``x`` in the dtype of the network's weights (bf16-true): images and latents are fp32 everywhere else."""
    return x.to(next(network.parameters()).dtype)
