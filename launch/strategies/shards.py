"""One rank's slices of a network under ZeRO, and their conversion to and from whole tensors.

Checkpoints, averages and evaluation go through here, so that none of them knows ranks or stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from launch.strategies.deepspeed_internals import (
    Engine,
    fragments,
    release_weights,
    sharded_optimizer,
    weight_slice,
    whole_shape,
)
from launch.strategies.fragments import Fragment
from launch.strategies.messages import BUCKET_BYTES, in_parts


class Shards:
    """This rank's slices of a network's fp32 masters and optimizer states (ZeRO stages 1 to 3).

    Args:
        engine: DeepSpeed's engine of the network.
        groups: the parameters of each of the optimizer's groups, as it was given them.
        names: name of each of them in the module.
    """

    def __init__(self, engine: Engine, groups: list[list[Parameter]], names: list[str]) -> None:
        self.engine = engine
        self.groups = groups
        self.parameters = dict(zip(names, (p for group in groups for p in group), strict=True))
        pieces = {id(piece.parameter): piece for piece in fragments(engine)}
        #: By name; a parameter of which this rank holds nothing has none.
        self.pieces = {name: pieces[id(p)] for name, p in self.parameters.items() if id(p) in pieces}

    @property
    def names(self) -> Collection[str]:
        """Names of the network's parameters in the module."""
        return self.parameters.keys()

    @property
    def partitioned(self) -> bool:
        """Whether the weights themselves are cut up (stage 3)."""
        return self.engine.zero_optimization_stage() == 3

    # ---- slices and whole tensors ------------------------------------------------------------------------------------

    def masters(self) -> dict[str, Tensor]:
        """Live slices of the fp32 weights that the optimizer steps: flat, by name; empty where there is none."""
        return {name: self._slice(name, lambda piece: piece.flat) for name in self.parameters}

    def _slice(self, name: str, flat: Callable[[Fragment], Tensor]) -> Tensor:
        piece = self.pieces.get(name)
        return piece.of(flat(piece)) if piece else torch.empty(0, device=self.engine.device)

    def whole(self, slices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gathers whole fp32 tensors from the ranks' slices; all ranks must call it alike."""
        return {name: self._whole(name, piece) for name, piece in slices.items()}

    def gathered(self, slices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Like ``whole``, for a checkpoint: on the first rank, in the host's memory; other ranks get nothing.

        A few tensors travel at a time, so that no rank holds them all on its device.
        """
        names, shapes = list(slices), [whole_shape(self.parameters[name]) for name in slices]
        numbers = [math.prod(shape) for shape in shapes]
        wholes: dict[str, Tensor] = {}
        for places in in_parts([4 * number for number in numbers], BUCKET_BYTES):
            sizes = [numbers[place] for place in places]
            flat = torch.zeros(sum(sizes), dtype=torch.float32, device=self.engine.device)
            parts = list(zip(places, flat.split(sizes), strict=True))
            for place, part in parts:
                name = names[place]
                if piece := self.pieces.get(name):
                    piece.cut(part).copy_(slices[name])
            # Each element stands on one rank, and is zero on all others.
            dist.reduce(flat, dst=0)
            if dist.get_rank() == 0:
                wholes |= {names[place]: part.view(shapes[place]).to("cpu", copy=True) for place, part in parts}
        return wholes

    def _whole(self, name: str, value: Tensor) -> Tensor:
        parameter = self.parameters[name]
        whole = torch.zeros(whole_shape(parameter), dtype=torch.float32, device=self.engine.device)
        if piece := self.pieces.get(name):
            piece.cut(whole).copy_(value)
        # Each element stands on one rank, and is zero on all others.
        dist.all_reduce(whole)
        return whole

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's slice of a whole tensor, in fp32 and in memory of its own."""
        piece = self.pieces.get(name)
        cut = piece.cut(whole) if piece else whole.new_empty(0)
        return cut.to(self.engine.device, torch.float32, copy=True)

    # ---- weights -----------------------------------------------------------------------------------------------------

    def show(self, slices: Mapping[str, Tensor]) -> None:
        """Makes the network's weights those of the ranks' slices; the masters stay what they are."""
        if self.partitioned:
            self.rest()
            for name, value in slices.items():
                weight_slice(self.parameters[name])[: value.numel()].copy_(value)
        else:
            for name, value in slices.items():
                self.parameters[name].detach().copy_(self._whole(name, value))

    def rest(self) -> None:
        """Takes partitioned weights back to their slices, so that these alone say what the weights are."""
        if self.partitioned:
            release_weights(self.engine)

    def take_over(self, wholes: Mapping[str, Tensor] | None = None) -> None:
        """Makes the masters equal to ``wholes``, or to the weights, which must be whole then."""
        for name, piece in self.pieces.items():
            source = piece.parameter.detach() if wholes is None else wholes[name]
            piece.of(piece.flat).copy_(piece.cut(source))

    # ---- optimizer states, as a single process would have them -------------------------------------------------------

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state dict, with whole tensors in the first rank's memory; every rank must call it alike."""
        states = sharded_optimizer(self.engine).state
        stepped = [states[piece.flat] for piece in self.pieces.values() if piece.flat in states]
        example: dict[str, Any] = stepped[0] if stepped else {}
        result: dict[int, dict[str, Any]] = {number: {} for number in range(len(self.parameters))} if example else {}
        for key, value in example.items():
            if isinstance(value, Tensor) and value.dim() > 0:

                def moment(piece: Fragment, key: str = key) -> Tensor:
                    return states[piece.flat][key]

                wholes = self.gathered({name: self._slice(name, moment) for name in self.parameters})
                for entry, whole in zip(result.values(), wholes.values(), strict=False):
                    entry[key] = whole
            else:
                for entry in result.values():
                    # Each its own: a fused optimizer counts in place, once for every parameter.
                    entry[key] = value.clone() if isinstance(value, Tensor) else value
        return {"state": result, "param_groups": self._param_groups(optimizer)}

    def _param_groups(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        groups, first = [], 0
        for group, parameters in zip(optimizer.param_groups, self.groups, strict=True):
            options = {key: value for key, value in group.items() if key in optimizer.defaults}
            groups.append({**options, "params": list(range(first, first + len(parameters)))})
            first += len(parameters)
        return groups

    def load_optimizer_state(self, saved: Mapping[str, Any]) -> None:
        """The inverse of ``optimizer_state``."""
        inner = sharded_optimizer(self.engine)
        for number, name in enumerate(self.parameters):
            if (piece := self.pieces.get(name)) is None:
                continue
            state = inner.state[piece.flat]
            for key, value in saved["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.dim() > 0:
                    piece.of(state.setdefault(key, torch.zeros_like(piece.flat))).copy_(piece.cut(value))
                else:
                    state[key] = value.clone() if isinstance(value, Tensor) else value
        for group, theirs in zip(inner.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in theirs.items() if key != "params"})
