"""Rows of a tensor by their numbers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def rows(x: Tensor, numbers: Tensor) -> Tensor:
    """``x[numbers]``, whose gradients add up in one order where a row is taken several times.

    Those of plain indexing are added up by several threads as they come: a resumed training would not be the same to
    the bit. An embedding's are not, on CUDA neither.

    Args:
        x: ``[R, ...]``.
        numbers: int64 ``[N]`` in [0, R).

    Returns:
        ``[N, ...]``.
    """
    return F.embedding(numbers, x.flatten(1)).unflatten(1, x.shape[1:])
