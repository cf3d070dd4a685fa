"""Weights and inputs by a formula: what the authors' code was run with need not be kept, only what came out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


def waves(*shape: int, number: float = 0, scale: float = 1.0) -> Tensor:
    """float64 ``scale * sin(0.7 i sqrt(i) + number)`` for the elements i = 0, 1, 2 ... of a tensor.

    With ``sin(0.7 i)`` every matrix would be of rank 2.
    """
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.7 * (places * places.sqrt()) + number)).view(shape)


def set_weights_(network: nn.Module, scale: float = 0.2) -> None:
    """Sets the trained parameters in the order of ``parameters()``, each by its number in it."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for number, parameter in enumerate(trained):
        parameter.data.copy_(waves(*parameter.shape, number=number, scale=scale))


def gradient_sums(network: nn.Module) -> Tensor:
    """float64, for each trained parameter: the inner product of its gradient with ``waves`` of its number."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = []
    for number, parameter in enumerate(trained):
        assert parameter.grad is not None
        gradient = parameter.grad.double()
        found.append((gradient * waves(*gradient.shape, number=number + 0.5)).sum())
    return torch.stack(found)


def set_balanced_weights_(network: nn.Module) -> None:
    """Sets the trained parameters of a deep network so that signals keep their size.

    Kernels are as He et al. (2015) draw them, matrices N(0, 1 / inputs), biases N(0, 0.05), scales of norms N(1, 0.05).
    NumPy's ``RandomState`` gives the same numbers for ever.
    """
    norms = {id(module.weight) for module in network.modules() if isinstance(module, nn.LayerNorm)}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for number, parameter in enumerate(trained):
        drawn = torch.from_numpy(np.random.RandomState(number).standard_normal(tuple(parameter.shape)))
        scale = math.sqrt(max(1, parameter.dim() - 2) / parameter[0].numel()) if parameter.dim() > 1 else 0.05
        parameter.data.copy_(drawn * scale + (id(parameter) in norms))


def set_he_weights_(parameters: Iterable[Tensor]) -> None:
    """Sets parameters in their order, each by its number in it: weights of He's variance, biases of deviation 0.07.

    So the values of a deep network without norms neither vanish nor grow.
    """
    for number, parameter in enumerate(parameters):
        scale = 2 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.1
        parameter.data.copy_(waves(*parameter.shape, number=number, scale=scale))
