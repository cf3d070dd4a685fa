"""Networks for use alone: norms of fixed statistics become part of the weights, and spectral norm is applied once.

A module says how with ``fold_``, which changes it in place, or ``folded``, which gives what takes its place.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy of a network that gives the same in eval mode, with less to compute; float32, on the CPU."""
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    # A kernel's strides are no part of what it means.
    network = network.to(memory_format=torch.contiguous_format)
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _apply_once_(module)
    # From the inside outwards.
    for module in reversed(list(network.modules())):
        for name, child in module.named_children():
            if (replaced := getattr(child, "folded", None)) is not None:
                setattr(module, name, replaced())
        if (fold_ := getattr(module, "fold_", None)) is not None:
            fold_()
    return network.eval().requires_grad_(False)


def _apply_once_(module: nn.Module) -> None:
    # Torch's own removal would take the original network's weights as well, whose class a copy shares.
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    del module.parametrizations
    (module.__class__,) = type(module).__bases__
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


@torch.no_grad()
def fold_scale_(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Makes a layer give y * scale + shift in place of y, exactly but for the last digit.

    Args:
        layer: a convolution, a transposed one or a linear layer; gets a bias.
        scale, shift: of its outputs, [C].
    """
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [-1 if dim == outputs else 1 for dim in range(layer.weight.dim())]
    scale, shift = scale.double(), shift.double()
    weight = (layer.weight.double() * scale.view(shape)).float()
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    layer.weight, layer.bias = (
        nn.Parameter(weight, requires_grad=False),
        nn.Parameter(bias.float(), requires_grad=False),
    )


class ClassAffine(nn.Module):
    """What is left of a conditional norm: a scale and a shift of each channel, by class.

    Args:
        scale, shift: ``[num_classes, C]``.
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale.float()), nn.Parameter(shift.float())

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """``[N, C, H, W]`` and int64 ``[N]`` to the same shape."""
        scale, shift = (nn.functional.embedding(labels, table)[:, :, None, None] for table in (self.scale, self.shift))
        return x * scale + shift
