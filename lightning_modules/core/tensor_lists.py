"""Lists of tensors, on which one operator call works at once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)


def same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two lists hold the same tensors, not only equal ones."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def grouped(tensors: Iterable[AnyTensor]) -> list[list[AnyTensor]]:
    """Tensors of one dtype and device together, in their order."""
    groups: dict[tuple[torch.dtype, torch.device], list[AnyTensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())
