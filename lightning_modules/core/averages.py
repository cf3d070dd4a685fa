"""Named moving averages (EMA) of a family's weights, under every strategy.

``ema`` is the one that previews, evaluation and exports use. A family may keep others and read them while it trains
(mean teacher, consistency training): see ``ImageFamily.own_averages`` and ``ImageFamily.averaged``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_modules.core.profiles import Profile

#: The average that previews, evaluation and exports use.
MAIN = "ema"

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


class SlicedNetwork(Protocol):
    """This rank's slices of a network whose weights are sharded over ranks (ZeRO); a strategy has one for each network.

    Names are those of parameters in the module, such as ``generator.0.weight``; slices are flat and fp32.
    """

    @property
    def names(self) -> Collection[str]:
        """Names of the network's parameters."""
        ...

    def masters(self) -> dict[str, Tensor]:
        """Live slices of the weights that the optimizer steps."""
        ...

    def whole(self, slices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gathers whole tensors from the ranks' slices; a collective: all ranks must call it."""
        ...

    def gathered(self, slices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Like ``whole``, in the host's memory of the first rank; empty on other ranks."""
        ...

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's slice of a whole tensor."""
        ...

    def show(self, slices: Mapping[str, Tensor]) -> None:
        """Sets the network's weights to the ranks' slices; the optimizer's masters do not change."""
        ...


@dataclass
class Average:
    """One moving average.

    Args:
        profile: weight of each moment of the training.
        networks: names of the averaged networks.
    """

    profile: Profile
    networks: tuple[str, ...]
    #: fp32, by name in the module; of a sliced network only this rank's slices, flat. Empty before training starts.
    values: dict[str, Tensor] = field(default_factory=dict)


class Averages:
    """A family's moving averages by name.

    An ``nn.Module`` names the buffers of its own that are averaged in its attribute ``averaged_buffers``. Without it,
    running statistics of torch's batch and instance norms are averaged. All other buffers are copied (counters,
    spectral norm's vectors, ``w_avg``, magnitudes): an average of them would be meaningless.

    Args:
        module: the family, whose attributes the networks are.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._averages: dict[str, Average] = {}
        self._loaded: dict[str, dict[str, Tensor]] = {}
        self._sliced: dict[str, SlicedNetwork] = {}
        self._followers: dict[str, _Follower] = {}
        self._wholes: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._in_place = ""

    # ---- which averages there are ------------------------------------------------------------------------------------

    def keep(self, name: str, profile: Profile, networks: Sequence[str]) -> None:
        """Adds an average, before training starts; one of the same name is replaced, and its values are kept."""
        before = self._averages.get(name)
        self._averages[name] = Average(profile, tuple(networks), before.values if before else {})

    def names(self) -> tuple[str, ...]:
        """Names of all averages."""
        return tuple(self._averages)

    def profiles(self) -> dict[str, str]:
        """Name of each average -> that of its profile (``power_0.05``), which checkpoints record."""
        return {name: average.profile.key for name, average in self._averages.items()}

    def __getitem__(self, name: str) -> Average:
        """The average ``name``.

        Raises:
            ValueError: there is none.
        """
        if name not in self._averages:
            raise ValueError(f"no average {name!r}; there are {', '.join(self._averages) or 'none'}")
        return self._averages[name]

    # ---- training ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, sliced: Mapping[str, SlicedNetwork]) -> None:
        """Initialises all averages from a loaded checkpoint, else from the present weights.

        Args:
            sliced: the networks that are sharded over ranks, by name.
        """
        was_sliced, self._sliced = bool(self._sliced), dict(sliced)
        self._wholes = {}
        for name, average in self._averages.items():
            follower = _Follower(self._module, average.networks, self._sliced)
            before = self._loaded.pop(name, {}) or ({} if was_sliced else average.values)
            values = {key: in_fp32(tensor).clone() for key, tensor in follower.now().items()}
            owners = {key: own for network in average.networks if (own := sliced.get(network)) for key in own.names}
            for key in before.keys() & values.keys():
                values[key].copy_(owners[key].cut(key, before[key]) if key in owners else before[key])
            average.values = values
            self._followers[name] = follower

    @torch.no_grad()
    def follow(self, batch: int, images_seen: int) -> None:
        """Updates every average with the weights after a step.

        Args:
            batch: number of images of the step, over all ranks.
            images_seen: number of images seen, including this step's.
        """
        self._wholes = {}
        for name, follower in self._followers.items():
            average = self._averages[name]
            follower.follow(average.values, 1 - average.profile.decay(batch, images_seen))

    def read(self, name: str, network: str) -> dict[str, Tensor]:
        """Whole tensors of an average of one network, by their names in the network, in the dtypes of its weights.

        Those of a sharded network are gathered once a step: all ranks must call it.

        Raises:
            ValueError: there is no such average, or it is not of this network.
        """
        average = self[name]
        if network not in average.networks:
            raise ValueError(f"the average {name!r} is of {', '.join(average.networks)}, not of {network}")
        if (name, network) not in self._wholes:
            prefix = f"{network}."
            own = {key: value for key, value in average.values.items() if key.startswith(prefix)}
            if (slices := self._sliced.get(network)) is not None:
                own |= slices.whole({key: own[key] for key in slices.names})
            live = self._live((network,))
            self._wholes[name, network] = {
                key.removeprefix(prefix): value.to(live[key].dtype) for key, value in own.items()
            }
        return self._wholes[name, network]

    # ---- evaluation --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_place(self, name: str = MAIN) -> Iterator[None]:
        """Context manager: the networks hold the average's weights; reentrant. Does nothing without such an average."""
        values = self._values(name)
        if not values or self._in_place == name:
            yield
            return
        if self._in_place:
            raise RuntimeError(f"the average {self._in_place!r} is in place already; {name!r} cannot be")
        live = self._unsliced(name)
        kept = {key: tensor.clone() for key, tensor in live.items()}
        self._put(name, live, values, lambda own: {key: values[key] for key in own.names})
        self._in_place = name
        try:
            yield
        finally:
            self._put(name, live, kept, lambda own: own.masters())
            self._in_place = ""

    @torch.no_grad()
    def _put(
        self,
        name: str,
        live: dict[str, Tensor],
        values: Mapping[str, Tensor],
        slices: Callable[[SlicedNetwork], dict[str, Tensor]],
    ) -> None:
        # In place: optimizers and engines hold references to the tensors.
        for key, tensor in live.items():
            tensor.copy_(values[key])
        for network in self._networks(name):
            if (own := self._sliced.get(network)) is not None:
                own.show(slices(own))

    def _unsliced(self, name: str) -> dict[str, Tensor]:
        networks = self._networks(name)
        sliced = {key for network in networks if (own := self._sliced.get(network)) for key in own.names}
        values = self._values(name)
        return {key: tensor for key, tensor in self._live(networks).items() if key in values and key not in sliced}

    def _live(self, networks: Sequence[str]) -> dict[str, Tensor]:
        return live_state(self._module, networks)

    def _networks(self, name: str) -> tuple[str, ...]:
        if name in self._averages:
            return self._averages[name].networks
        return tuple(dict.fromkeys(key.partition(".")[0] for key in self._loaded.get(name, {})))

    def _values(self, name: str) -> dict[str, Tensor]:
        # Those of a checkpoint, where it was loaded only to evaluate.
        average = self._averages.get(name)
        return self._loaded.get(name) or (average.values if average else {})

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Whole fp32 tensors of every average, by average and tensor name; a collective: all ranks must call it.

        Those of a sharded network are on the first rank alone.
        """
        return {name: self.whole(name) for name in self._averages if self._values(name)}

    def whole(self, name: str) -> dict[str, Tensor]:
        """Whole fp32 tensors of one average, by their names in the module; a collective: all ranks must call it.

        Those of a sharded network are on the first rank alone.
        """
        values = dict(self._values(name))
        for network in self._networks(name):
            if (own := self._sliced.get(network)) is not None:
                values |= own.gathered({key: values.pop(key) for key in own.names})
        return values

    def copied(self, name: str) -> frozenset[str]:
        """Names of an average's tensors that are copied, not averaged (counters and the like)."""
        return self._followers[name].copied

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state_dict``; takes effect at ``start``."""
        self._loaded = {name: dict(values) for name, values in state.items()}


class _Follower:
    """The live tensors behind an average; lists are made once, since walking modules each step costs time.

    Buffers are looked up at each step: a network may replace them.
    """

    def __init__(self, module: nn.Module, networks: Sequence[str], sliced: Mapping[str, SlicedNetwork]) -> None:
        self._sliced = [sliced[network] for network in networks if network in sliced]
        elsewhere = {key for own in self._sliced for key in own.names}
        self._parameters: dict[str, Tensor] = {}
        #: Buffers by name: the submodule, and the attribute.
        self._averaged: dict[str, tuple[nn.Module, str]] = {}
        self._copied: dict[str, tuple[nn.Module, str]] = {}
        for key, owner, attribute in _tensors(module, networks):
            if attribute in owner._parameters:
                if key not in elsewhere:
                    self._parameters[key] = getattr(owner, attribute)
            else:
                averaged = getattr(owner, attribute).is_floating_point() and attribute in averaged_buffers(owner)
                (self._averaged if averaged else self._copied)[key] = (owner, attribute)
        self.copied = frozenset(self._copied)
        self._values: Mapping[str, Tensor] = {}
        self._means: list[Tensor] = []
        self._copies: list[Tensor] = []

    def now(self) -> dict[str, Tensor]:
        """All live tensors: fp32 masters where an engine keeps them, else the weights themselves."""
        return {**self._averaged_now(), **{key: _buffer(owner, name) for key, (owner, name) in self._copied.items()}}

    def _averaged_now(self) -> dict[str, Tensor]:
        masters = {key: piece for own in self._sliced for key, piece in own.masters().items()}
        buffers = {key: _buffer(owner, name) for key, (owner, name) in self._averaged.items()}
        return {**self._parameters, **masters, **buffers}

    def follow(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Moves ``values`` towards the live tensors by the fraction ``weight``; copies those that are not averaged."""
        now = self._averaged_now()
        if values is not self._values:
            self._values = values
            self._means = [values[key] for key in now]
            self._copies = [values[key] for key in self._copied]
        if now:
            live = [in_fp32(tensor) if tensor.dtype != torch.float32 else tensor for tensor in now.values()]
            torch._foreach_lerp_(self._means, live, weight)
        if self._copies:
            torch._foreach_copy_(self._copies, [_buffer(*place) for place in self._copied.values()])


def _buffer(owner: nn.Module, name: str) -> Tensor:
    buffer = owner._buffers[name]
    assert buffer is not None
    return buffer


def live_state(module: nn.Module, networks: Sequence[str]) -> dict[str, Tensor]:
    """Parameters and persistent buffers of ``networks``, by their names in ``module``; the live tensors."""
    return {key: getattr(owner, name).detach() for key, owner, name in _tensors(module, networks)}


def _tensors(module: nn.Module, networks: Sequence[str]) -> Iterator[tuple[str, nn.Module, str]]:
    """Name in ``module``, owning submodule and attribute of each entry of the networks' state dicts."""
    for network in networks:
        for path, owner in getattr(module, network).named_modules(prefix=network, remove_duplicate=False):
            persistent = [name for name in owner._buffers if name not in owner._non_persistent_buffers_set]
            for name in [*owner._parameters, *persistent]:
                if getattr(owner, name) is not None:
                    yield f"{path}.{name}", owner, name


def averaged_buffers(owner: nn.Module) -> Collection[str]:
    """Names of a submodule's own floating-point buffers that are averaged; all others are copied."""
    said: Collection[str] | None = getattr(owner, "averaged_buffers", None)
    if said is not None:
        return said
    return ("running_mean", "running_var") if isinstance(owner, _NORMS) else ()


def in_fp32(tensor: Tensor) -> Tensor:
    """Converts floating-point tensors to fp32: the small steps of an average would be lost in bf16."""
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
