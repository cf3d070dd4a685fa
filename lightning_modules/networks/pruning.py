"""Structured pruning: a narrower network of the channels of a wider one that weigh most.

Widths are options of the networks, so that the narrower one is built like any other; what is here chooses which
channels of each layer it takes over, and copies their weights. (Graph tracers such as torch-pruning's know neither
conditional batch norm nor features that are read as NHWC.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Statistics follow a layer's weights; they do not say how much a channel weighs.
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or dropped together: those that a layer makes, and others normalise and take in.

    Args:
        places: by name of a weight or buffer, the dimension in which these channels lie. Several blocks of all
            channels, one behind the other, may lie there: places of a map that is read as NHWC.
    """

    places: Mapping[str, int]


def pruned_state(
    wide: Mapping[str, Tensor], narrow: Mapping[str, Tensor], groups: Sequence[ChannelGroup]
) -> dict[str, Tensor]:
    """The weights of a narrower network out of those of a wider one.

    Of each group as many channels are kept as the narrower network has, in their order: those with the largest share of
    squared weights, a mean over the group's tensors (Li et al. 2017, arXiv:1608.08710, over groups as Fang et al. 2023,
    arXiv:2301.12900).

    Args:
        wide: state of the wider network.
        narrow: state of the narrower one, for its shapes.
        groups: all channels that differ in number.

    Returns:
        A state for the narrower network.

    Raises:
        ValueError: the narrower network has a weight that the groups do not explain; names it.
    """
    state = dict(wide)
    for group in groups:
        count, left = _blocks(group, wide, narrow)
        kept = _importance(group, wide, count).topk(left).indices.sort().values
        for name, dim in group.places.items():
            blocks = state[name].shape[dim] // count
            rows = (torch.arange(blocks)[:, None] * count + kept).flatten()
            state[name] = state[name].index_select(dim, rows.to(state[name].device))
    for name, value in narrow.items():
        if name not in state or state[name].shape != value.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise ValueError(f"{name} is {tuple(value.shape)} here, and {found} there: more than widths differ")
    return {name: state[name] for name in narrow}


def _blocks(group: ChannelGroup, wide: Mapping[str, Tensor], narrow: Mapping[str, Tensor]) -> tuple[int, int]:
    """Number of a group's channels in the wider and in the narrower network: its shortest dimension."""
    sizes = {}
    for name, dim in group.places.items():
        if name not in wide or name not in narrow:
            raise ValueError(f"{name}: only one of the networks has it: more than widths differ")
        sizes[name] = (wide[name].shape[dim], narrow[name].shape[dim])
    count, left = min(sizes.values())
    if left > count:
        raise ValueError(f"{next(iter(sizes))} has {left} channels here, and {count} there: a pruned one has fewer")
    return count, left


def _importance(group: ChannelGroup, wide: Mapping[str, Tensor], count: int) -> Tensor:
    """The mean share, float64 [count], of each channel in the squared weights of the group's tensors."""
    shares = []
    for name, dim in group.places.items():
        if not name.endswith(_STATISTICS):
            squares = wide[name].double().square().movedim(dim, 0)
            squares = squares.reshape(-1, count, squares[0].numel()).sum((0, 2))
            shares.append(squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny))
    return torch.stack(shares).mean(0)
