"""Predicts the time of a training step under each strategy, out of its compute and the bytes that a rank sends.

A step takes the compute of one rank and, of its communication, what is not hidden under that. What is sent was read in
``launch/strategies/ddp.py`` and in DeepSpeed 0.19; a ring's volume is that of Patarasuk and Yuan, Bandwidth Optimal
All-reduce Algorithms for Clusters of Workstations (2009). ``tests/launch/planning/test_speed.py`` compares ``ddp`` with
trainings on 1, 2 and 4 ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from launch.planning.memory import FP32, Network, Strategy
from launch.strategies.gradients import BUCKET_BYTES as GRADIENT_BUCKET
from launch.strategies.messages import BUCKET_BYTES

#: Bytes a second between a device and its host's memory: PCIe 4.0 with 16 lanes, of which 80 % are reached.
HOST_BANDWIDTH = 25e9
#: Share of the backward pass during which gradients travel: all of it under ddp; under DeepSpeed, at stage 3 alone.
OVERLAP = {0: 1.0, 1: 0.0, 2: 0.0, 3: 1.0}
#: Bytes of a collective that only asks something of all ranks.
_NUMBER = 8


@dataclass(frozen=True)
class Update:
    """An update of one network, or of several that step together.

    Args:
        names: of the networks.
        per_step: how many such updates a training step has; less than 1 where only some steps have one.
        forward, backward: shares of the step's compute that all of these updates take, 0 to 1.
    """

    names: tuple[str, ...]
    per_step: float
    forward: float
    backward: float


@dataclass(frozen=True)
class Cluster:
    """The ranks, and what connects them.

    Args:
        ranks: of the training.
        bandwidth: bytes a second, each way, of the slowest link of the ring through all ranks: a node's network, or
            on one node that between two devices.
        latency: seconds that a collective of a few bytes takes.
        host_bandwidth: bytes a second between a device and its host's memory.
    """

    ranks: int
    bandwidth: float
    latency: float
    host_bandwidth: float = HOST_BANDWIDTH

    def share(self, size: float) -> float:
        """Bytes that a rank sends while ``size`` bytes are gathered from all ranks, or summed up and scattered."""
        return size * (self.ranks - 1) / self.ranks

    def seconds(self, sent: float, collectives: float) -> float:
        """Of collectives in which a rank sends so many bytes; 0 on one rank."""
        return sent / self.bandwidth + collectives * self.latency if self.ranks > 1 else 0.0


@dataclass(frozen=True)
class Traffic:
    """Communication of a rank.

    Args:
        sent: bytes that it sends to others.
        collectives: number of messages that all ranks wait for.
        moved: bytes between the device and its host's memory.
    """

    sent: float = 0.0
    collectives: float = 0.0
    moved: float = 0.0

    def plus(self, other: Traffic) -> Traffic:
        return Traffic(self.sent + other.sent, self.collectives + other.collectives, self.moved + other.moved)

    def times(self, factor: float) -> Traffic:
        return Traffic(self.sent * factor, self.collectives * factor, self.moved * factor)

    def seconds(self, cluster: Cluster) -> float:
        return cluster.seconds(self.sent, self.collectives) + self.moved / cluster.host_bandwidth


@dataclass(frozen=True)
class Prediction:
    """Seconds of a rank's step: compute, communication, and how much of that is hidden under the compute."""

    strategy: Strategy
    traffic: Traffic
    compute: float
    communication: float
    hidden: float

    @property
    def step(self) -> float:
        """Seconds of the step."""
        return self.compute + self.communication - self.hidden

    @property
    def efficiency(self) -> float:
        """Images a second over those of as many ranks that never wait, each with the same images, 0 to 1."""
        return self.compute / self.step


def predicted(
    strategy: Strategy,
    networks: Iterable[Network],
    updates: Sequence[Update],
    cluster: Cluster,
    *,
    compute: float,
    overlap: float | None = None,
    micro_batches: int = 1,
) -> Prediction:
    """A step under ``strategy``.

    Args:
        strategy: the strategy.
        networks: of the family.
        updates: of a step.
        cluster: the ranks.
        compute: seconds of a step on one rank, without any communication.
        overlap: share of an update's backward pass (at stage 3, also of its forward pass) during which gradients and
            weights travel, 0 to 1; 0: they wait for its end; None: that of the strategy.
        micro_batches: parts of a rank's batch.
    """
    by_name = {network.name: network for network in networks}
    overlap = OVERLAP[strategy.stage] if overlap is None else overlap
    # The family shares the networks' buffers at a step's end. (Nobody waits for the agreement on signals.)
    total = Traffic(*_broadcast(sum(network.buffer_bytes for network in by_name.values())))
    communication, hidden = total.seconds(cluster), 0.0
    for update in updates:
        under, after = _traffic(strategy, by_name, update.names, cluster, micro_batches)
        seconds = under.times(update.per_step).seconds(cluster)
        passes = update.backward + (update.forward if _partitioned(strategy, by_name, update.names) else 0.0)
        # Of several micro-batches, only the last one's gradients are complete, unless each one's are sent.
        parts = 1 if strategy.stage >= 2 else micro_batches
        # The last bucket is ready when nothing is left to hide it.
        hidden += min(max(0.0, seconds - cluster.latency), overlap * passes * compute / parts)
        communication += seconds + after.times(update.per_step).seconds(cluster)
        total = total.plus(under.plus(after).times(update.per_step))
    if cluster.ranks == 1:
        total = Traffic(moved=total.moved)
    return Prediction(strategy, total, compute, communication, hidden)


def _broadcast(size: float) -> tuple[float, float]:
    return (size, 1) if size else (0, 0)


def _traffic(
    strategy: Strategy, networks: Mapping[str, Network], names: Sequence[str], cluster: Cluster, micro_batches: int
) -> tuple[Traffic, Traffic]:
    """One update's communication that can travel while gradients are computed, and the rest of it."""
    under, after = Traffic(), Traffic()
    for name in names:
        size = networks[name].trained * FP32
        buckets = math.ceil(size / BUCKET_BYTES)
        one = Traffic(cluster.share(size), buckets)
        if not strategy.stage:
            # Summed up and scattered, then gathered: of the ring, one message.
            under = under.plus(Traffic(2 * cluster.share(size), math.ceil(size / GRADIENT_BUCKET)))
        elif _partitioned(strategy, networks, [name]):
            # Weights are gathered for the forward and again for the backward pass, gradients summed up.
            under = under.plus(one.times(3 * micro_batches))
        else:
            under = under.plus(one.times(micro_batches if strategy.stage >= 2 else 1))
            # New weights; and DeepSpeed asks all ranks for overflows and the gradients' norm.
            after = after.plus(one).plus(Traffic(2 * _NUMBER, 2))
        if strategy.offload:
            after = after.plus(Traffic(moved=2 * size / cluster.ranks))
    others = (name for name, network in networks.items() if name not in names and network.groups)
    for name in others:
        if _partitioned(strategy, networks, [name]):
            # As part of the loss: gathered for both passes, though none of its weights is trained.
            size = networks[name].trained * FP32
            under = under.plus(Traffic(cluster.share(size), math.ceil(size / BUCKET_BYTES)).times(2 * micro_batches))
    return under, after


def _partitioned(strategy: Strategy, networks: Mapping[str, Network], names: Iterable[str]) -> bool:
    return strategy.stage == 3 and not any(networks[name].requires_double_backward for name in names)
