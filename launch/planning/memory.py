"""Bytes that one rank holds under each strategy, by arithmetic.

The rules for DeepSpeed 0.19 were read in its ``runtime/zero/stage_1_and_2.py`` and ``stage3.py``;
``tests/launch/planning`` measures it on two ranks. In every precision that trains here (32-true, bf16-mixed,
16-mixed) weights, gradients and optimizer states are fp32; only activations are smaller under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce

from launch.strategies.gradients import BUCKET_BYTES as GRADIENT_BUCKET
from launch.strategies.messages import BUCKET_BYTES

#: Bytes of an fp32 number.
FP32 = 4
GIB = 2**30
#: Largest number of gathered weights at stage 3; DeepSpeed's default.
MAX_LIVE = 1_000_000_000


@dataclass(frozen=True)
class Strategy:
    """A name for ``--trainer.strategy``.

    Args:
        name: value of the option.
        stage: of ZeRO; 0: DDP.
        offload: optimizer states are in the host's memory; at stage 3 weights, too.
    """

    name: str
    stage: int
    offload: bool = False


STRATEGIES = (
    Strategy("ddp", 0),
    Strategy("zero0", 0),
    Strategy("zero1", 1),
    Strategy("zero2", 2),
    Strategy("zero3", 3),
    Strategy("zero2_offload", 2, offload=True),
    Strategy("zero3_offload", 3, offload=True),
)


@dataclass(frozen=True)
class Group:
    """Parameters that one optimizer group trains.

    Args:
        numels: elements of each parameter, in the group's order.
        state_bytes: of the optimizer's states of these parameters, each by itself.
        state_per_element, state_per_tensor: bytes of the states of a flat tensor, as ZeRO makes one of many parameters.
    """

    numels: tuple[int, ...]
    state_bytes: int
    state_per_element: float
    state_per_tensor: int

    def flat_state_bytes(self, elements: int) -> int:
        return round(elements * self.state_per_element) + self.state_per_tensor


@dataclass(frozen=True)
class Network:
    """A network's sizes.

    Args:
        name: attribute of the family.
        groups: what is trained, by optimizer group; empty for a network that is only used.
        frozen: elements of each parameter that no optimizer trains.
        buffer_bytes: statistics and the like; whole on every rank.
        averages: how many moving averages of its weights are kept (EMA and others).
        requires_double_backward: differentiated twice, which stage 3 cannot: it stays at stage 2.
        zero_refusal: why ZeRO cannot train it, in one line; None: it can.
    """

    name: str
    groups: tuple[Group, ...]
    frozen: tuple[int, ...] = ()
    buffer_bytes: int = 0
    averages: int = 0
    requires_double_backward: bool = False
    zero_refusal: str | None = None

    @property
    def numels(self) -> tuple[int, ...]:
        return (*(n for group in self.groups for n in group.numels), *self.frozen)

    @property
    def trained(self) -> int:
        """Elements that are trained."""
        return sum(sum(group.numels) for group in self.groups)

    @property
    def weight_bytes(self) -> int:
        return sum(self.numels) * FP32 + self.buffer_bytes


@dataclass(frozen=True)
class Share:
    """Bytes by purpose. ``masters``: ZeRO's second copy of the weights; ``buffers``: for communication."""

    weights: int = 0
    masters: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def plus(self, other: Share) -> Share:
        return Share(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def at_least(self, other: Share) -> Share:
        return Share(*(max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Held:
    """Memory of one rank for one network.

    Args:
        stays: on the device, always.
        passes: on the device while this network is updated; networks are updated one after the other.
        host: in the host's memory.
    """

    stays: Share
    passes: Share = Share()
    host: Share = Share()


def held(
    network: Network,
    strategy: Strategy,
    *,
    ranks: int,
    micro_batches: int = 1,
    reduce_bucket: int = BUCKET_BYTES // FP32,
) -> Held:
    """Memory of a rank for ``network``; where ranks differ (padding, cuts), that of the largest.

    Args:
        network: the network.
        strategy: the strategy.
        ranks: number of ranks of the training.
        micro_batches: parts of a rank's batch, over which gradients add up.
        reduce_bucket: DeepSpeed's ``reduce_bucket_size``, in elements.
    """
    if not network.groups or not strategy.stage:
        return _replicated(network, ranks)
    if strategy.stage == 3 and not network.requires_double_backward:
        return _partitioned(network, strategy.offload, ranks, reduce_bucket)
    return _flat(network, min(strategy.stage, 2), strategy.offload, ranks, micro_batches, reduce_bucket)


def _replicated(network: Network, ranks: int) -> Held:
    gradients = network.trained * FP32
    stays = Share(
        weights=network.weight_bytes,
        optimizer=sum(group.state_bytes for group in network.groups),
        average=network.weight_bytes * network.averages,
    )
    # Beside the buckets, the gradients of the one that is not complete yet.
    return Held(stays, Share(gradients=gradients, buffers=min(gradients, GRADIENT_BUCKET) if ranks > 1 else 0))


def _flat(network: Network, stage: int, offload: bool, ranks: int, micro_batches: int, reduce_bucket: int) -> Held:
    """Stages 1 and 2: a group's weights in one flat tensor, of which each rank optimizes one equal slice."""
    slices = [_slice(group, ranks) for group in network.groups]
    mine, whole = sum(slices) * FP32, sum(network.frozen) * FP32 + network.buffer_bytes
    sharded = Share(
        masters=mine,
        optimizer=sum(group.flat_state_bytes(size) for group, size in zip(network.groups, slices, strict=True)),
        # An average of this rank's masters.
        average=mine * network.averages,
    )
    stays = Share(weights=mine * ranks + whole, average=whole * network.averages)
    bucket = reduce_bucket * FP32
    if offload:
        largest = max(n for group in network.groups for n in group.numels) * FP32
        summed = _touched(network, ranks) * FP32 if micro_batches > 1 else 0
        # The slice of the new weights and the largest gradient on their way between host and device.
        host = sharded.plus(Share(gradients=mine + summed, buffers=mine + largest))
        return Held(stays.plus(Share(buffers=largest)), Share(buffers=bucket), host)
    # A parameter that a cut goes through is kept whole on both sides of it.
    gradients = _touched(network, ranks) * FP32
    if micro_batches > 1 and stage == 1:
        # Only their sum is reduced, and stands whole on every rank until then.
        gradients = max(gradients, network.trained * FP32)
    elif micro_batches > 1:
        # Each is reduced beside the sum of those before.
        bucket += gradients
    return Held(stays.plus(sharded), Share(gradients=gradients, buffers=max(bucket, mine)))


def _partitioned(network: Network, offload: bool, ranks: int, reduce_bucket: int) -> Held:
    """Stage 3: every parameter cut by itself; whole only while it is used."""
    mine = sum(math.ceil(n / ranks) for group in network.groups for n in group.numels) * FP32
    weights = sum(math.ceil(n / ranks) for n in network.numels) * FP32
    sharded = Share(
        weights=weights,
        masters=mine,
        gradients=mine,
        optimizer=sum(
            group.flat_state_bytes(sum(math.ceil(n / ranks) for n in group.numels)) for group in network.groups
        ),
        average=weights * network.averages,
    )
    # The bucket is never given back; weights that are soon used again stay whole, up to a limit of DeepSpeed's.
    stays = Share(
        weights=network.buffer_bytes,
        average=network.buffer_bytes * network.averages,
        buffers=reduce_bucket * FP32,
    )
    gathered = min(sum(network.numels), MAX_LIVE) * FP32
    if offload:
        return Held(stays, Share(buffers=gathered), sharded.plus(Share(gradients=mine)))
    # The optimizer's step sees a copy of the gradients, when no weights are gathered any more.
    return Held(stays.plus(sharded), Share(buffers=max(gathered, mine)))


def _slice(group: Group, ranks: int) -> int:
    """Elements of a rank's slice; DeepSpeed aligns the whole to two elements a rank."""
    return math.ceil(sum(group.numels) / (2 * ranks)) * 2


def _touched(network: Network, ranks: int) -> int:
    """Elements of the parameters of which a rank's slices hold a part, for the rank that has most."""
    return max(sum(_of_slice(group, rank, ranks) for group in network.groups) for rank in range(ranks))


def _of_slice(group: Group, rank: int, ranks: int) -> int:
    size = _slice(group, ranks)
    first, last = rank * size, (rank + 1) * size
    touched = position = 0
    for numel in group.numels:
        if position < last and position + numel > first:
            touched += numel
        position += numel
    return touched + max(0, last - max(first, position))


def together(networks: Iterable[Held]) -> tuple[Share, Share]:
    """Peak memory of one rank for all networks: on the device, and in the host's memory."""
    all_held = list(networks)
    stays = reduce(Share.plus, (one.stays for one in all_held), Share())
    passes = reduce(Share.at_least, (one.passes for one in all_held), Share())
    return stays.plus(passes), reduce(Share.plus, (one.host for one in all_held), Share())


@dataclass(frozen=True)
class Row:
    """Peak memory of one rank under ``strategy`` without activations: on the device, and in the host's memory."""

    strategy: Strategy
    device: Share
    host: Share


def rows(networks: Sequence[Network], strategies: Iterable[Strategy], **options: int) -> list[Row]:
    """A row for each strategy that can train all of the networks; ``options`` as of ``held``."""
    whole = any(network.zero_refusal for network in networks)
    possible = [strategy for strategy in strategies if not (strategy.stage and whole)]
    return [Row(s, *together(held(network, s, **options) for network in networks)) for s in possible]


def first_that_fits(
    table: Sequence[Row], activations: Mapping[bool, int], memory: float, *, checkpointing: bool
) -> tuple[Row, bool] | None:
    """The first row that fits into ``memory`` bytes, and whether with gradient checkpointing; None: there is none.

    Args:
        table: rows in order of preference.
        activations: bytes without (False) and, where the family supports it, with (True) gradient checkpointing.
        memory: bytes of the device.
        checkpointing: the recipe's setting; if it is off, it is turned on only when nothing fits otherwise.
    """
    for on in (checkpointing, True):
        for row in table if on in activations else ():
            if row.device.total + activations[on] <= memory:
                return row, on
    return None


def images_per_micro_batch(global_batch_size: int, *, ranks: int, micro_batches: int) -> int:
    """Images per rank and micro-batch.

    Raises:
        ValueError: the batch cannot be cut into equal parts.
    """
    if global_batch_size % (ranks * micro_batches):
        raise ValueError(
            f"a global batch of {global_batch_size} images cannot be cut into {ranks} ranks x {micro_batches} "
            f"micro-batches: set --data.global_batch_size to a multiple of {ranks * micro_batches}"
        )
    return global_batch_size // (ranks * micro_batches)
