"""Inputs in the precision of a network's weights, and parts of a network that need more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


def like_weights(x: Tensor, network: nn.Module) -> Tensor:
    """``x`` in the dtype of the network's weights (bf16-true): images and latents are fp32 everywhere else."""
    return x.to(weights_dtype(network))


def weights_dtype(network: nn.Module) -> torch.dtype:
    """The dtype of the network's weights, which all have the same."""
    return next(network.parameters()).dtype


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half precisions, others as they are: the dtype of what half a precision is too little for."""
    return torch.promote_types(dtype, torch.float32)


def inner_dtype(network: nn.Module, device: torch.device) -> torch.dtype:
    """The dtype of a network's feature maps: autocast's where it is on, otherwise that of the weights.

    For networks that switch autocast off and say the precision of each of their parts. Weights in float64 stay so.
    """
    dtype = weights_dtype(network)
    if dtype != torch.float64 and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return dtype


def in_full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 where it has 16 bits; float32 and float64 stay."""
    return x.to(at_least_float32(x.dtype))


class ExactBuffers(nn.Module):
    """A module whose ``exact_buffers`` keep their dtype where its weights get another one, such as in bf16-true.

    Slow averages belong there: in 16 bits, a change of a thousandth rounds to none.
    """

    exact_buffers: tuple[str, ...] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: self._buffers[name] for name in self.exact_buffers if name in self._buffers}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self
