"""Residual experts of which a gate chooses one or two for each picture (Shazeer et al. 2017, arXiv:1701.06538).

The experts' weights lie behind one another in one tensor, and each row's convolution takes those of its own expert. So
the graph, the parameters and their order are the same on every rank, whatever was chosen there: DDP and ZeRO need
nothing of their own, no rank waits for its device to know a shape, and no expert is computed for a row that did not
choose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Range, Whole
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import at_least_float32
from lightning_modules.networks.rows import rows

#: Whose statistics choose: the ``style`` picture's or the ``content``'s.
Gate = Literal["style", "content"]


@dataclass(frozen=True)
class ExpertOptions:
    """Experts in a decoder.

    Args:
        count: how many experts; 0: none, and no gate. One alone is a plain residual block.
        chosen: how many of them work on each picture, 1 or 2.
        gate: see ``Gate``.
        width: channels in the middle of each expert.
    """

    count: Whole = 0
    chosen: Annotated[int, Range(1, 2)] = 1
    gate: Gate = "style"
    width: Count = 256


class Routing(NamedTuple):
    """Which experts work on each row, and how much each of them counts.

    Args:
        chosen: numbers of experts, int64 [N, K].
        shares: factors of their results: [N, K, 1, 1], or of each place [N, K, H, W].
        probabilities: the gate's of all experts, float32 [N, E] with sums of 1.
    """

    chosen: Tensor
    shares: Tensor
    probabilities: Tensor

    def load(self) -> Tensor:
        """The share of each expert in all choices of the batch: [E], with a sum of 1; no gradient."""
        numbers = torch.arange(self.probabilities.shape[1], device=self.chosen.device)
        return (self.chosen[..., None] == numbers).to(self.probabilities.dtype).mean((0, 1))


class Router(nn.Linear):
    """Chooses experts by a linear layer and a softmax.

    The share of a single chosen expert is its probability, without which nothing but the balance loss would teach the
    gate (Fedus et al. 2021, arXiv:2101.03961, eq. 2); those of two are theirs divided by their sum (Lepikhin et al.
    2020, arXiv:2006.16668).

    Args:
        options: see ``ExpertOptions``.
        features: entries of the vectors.

    Raises:
        ValueError: more experts are chosen than there are.
    """

    def __init__(self, options: ExpertOptions, *, features: int) -> None:
        if options.chosen > options.count:
            raise ValueError(
                f"experts.chosen is {options.chosen}, experts.count {options.count}: choose no more than there are"
            )
        super().__init__(features, options.count)
        self.chosen = options.chosen

    def forward(self, vectors: Tensor) -> Routing:  # type: ignore[override]
        """Routes rows by vectors [N, features], which are normalised first; in float32 or better."""
        dtype = at_least_float32(self.weight.dtype)
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = F.layer_norm(vectors.to(dtype), vectors.shape[1:])
            probabilities = F.linear(vectors, self.weight.to(dtype), self.bias.to(dtype)).softmax(1)
        shares, chosen = probabilities.topk(self.chosen, dim=1)
        if self.chosen > 1:
            shares = shares / shares.sum(1, keepdim=True)
        return Routing(chosen, shares[:, :, None, None], probabilities)


class Experts(nn.Module):
    """Residual blocks x + Σ share * F(x) of the chosen experts, F two convolutions of 3 x 3, each behind a ReLU.

    Args:
        options: see ``ExpertOptions``.
        channels: of the map.
    """

    def __init__(self, options: ExpertOptions, channels: int) -> None:
        super().__init__()
        self.first = _Convolutions(options.count, channels, options.width)
        self.second = _Convolutions(options.count, options.width, channels)

    def forward(self, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same shape.

        Args:
            x: the map.
            chosen, shares: of a ``Routing``.
        """
        shares = shares.to(x.dtype)
        if self.first.count == 1:
            # Whatever was chosen it is this one.
            zeros = chosen.new_zeros(len(x))
            return x + shares.sum(1, keepdim=True) * self.second(F.relu(self.first(F.relu(x), zeros)), zeros)
        count, each = chosen.shape
        inner = F.relu(x)[:, None].expand(-1, each, -1, -1, -1).flatten(0, 1)
        found = self.second(F.relu(self.first(inner, chosen.flatten())), chosen.flatten())
        return x + (found.unflatten(0, (count, each)) * shares[:, :, None]).sum(1)


def mixed(parts: Sequence[tuple[Tensor | float, Routing]]) -> Routing:
    """The experts of several routings of one row, each with a factor: a number, [1], or [h, w] by place."""
    shares = [factor * routing.shares for factor, routing in parts]
    size = max(each.shape[2:] for each in shares)
    return Routing(
        torch.cat([routing.chosen for _, routing in parts], 1),
        torch.cat([each.expand(-1, -1, *size) for each in shares], 1),
        sum((routing.probabilities for _, routing in parts), torch.zeros(())) / len(parts),
    )


class _Convolutions(nn.Conv2d):
    """Convolutions of 3 x 3 with reflection padding, one for each expert: ``[experts * outputs, inputs, 3, 3]``."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__(inputs, count * outputs, 3)
        self.count = count

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:  # type: ignore[override]
        """``[N, inputs, H, W]``, and the number of each row's expert, int64 [N], to ``[N, outputs, H, W]``."""
        assert self.bias is not None
        if self.count == 1:
            return F.conv2d(reflect(x), self.weight, self.bias)
        weight = rows(self.weight.unflatten(0, (self.count, -1)), chosen).flatten(0, 1)
        bias = rows(self.bias.unflatten(0, (self.count, -1)), chosen).flatten()
        # One group of channels for each row.
        found = F.conv2d(reflect(x).flatten(0, 1)[None], weight, bias, groups=len(chosen))
        return found.unflatten(1, (len(chosen), -1))[0]
