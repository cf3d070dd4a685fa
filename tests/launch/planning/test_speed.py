"""The arithmetic of a step's time, by hand, and beside trainings on this machine."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from launch.planning import compute, footprint
from launch.planning.memory import STRATEGIES, Group, Network
from launch.planning.speed import Cluster, Update, predicted
from tests.launch.planning import memory_program
from tests.launch.planning.speed_program import measure

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}
#: 4 MB and 8 MB of weights.
FIRST, SECOND = (
    Network(name, (Group((numel,), 8 * numel + 4, 8.0, 4),))
    for name, numel in (("first", 10**6), ("second", 2 * 10**6))
)
ONE_UPDATE = [Update(("first",), 1, 0.25, 0.75)]
#: 1 MB takes a millisecond.
FOUR = Cluster(4, 1e9, 0.0)


def step(
    name: str, *networks: Network, updates: list[Update] = ONE_UPDATE, cluster: Cluster = FOUR, **options: Any
) -> Any:
    options = {"compute": 0.1, "overlap": 0.0, **options}
    return predicted(BY_NAME[name], networks or [FIRST], updates, cluster, **options)


def test_a_ring_sends_each_gradient_nearly_twice() -> None:
    found = step("ddp")
    assert found.communication == pytest.approx(2 * 3 / 4 * 4e-3, rel=1e-4)
    assert found.step == pytest.approx(0.106, rel=1e-4)
    assert found.efficiency == pytest.approx(0.1 / 0.106, rel=1e-4)


def test_one_rank_sends_nothing() -> None:
    for strategy in STRATEGIES:
        found = step(strategy.name, cluster=Cluster(1, 1e9, 1.0))
        assert found.traffic.sent == found.traffic.collectives == 0
        assert found.step == pytest.approx(0.1 + (8e6 / 25e9 if strategy.offload else 0))


@pytest.mark.parametrize(
    ("name", "micro_batches", "gathered_or_scattered"),
    # DDP and stage 1 exchange the sum of the micro-batches' gradients, stages 2 and 3 those of each.
    [("ddp", 1, 2), ("ddp", 3, 2), ("zero1", 3, 2), ("zero2", 1, 2), ("zero2", 3, 4), ("zero3", 1, 3), ("zero3", 3, 9)],
)
def test_each_stage_sends_what_the_paper_says(name: str, micro_batches: int, gathered_or_scattered: int) -> None:
    assert step(name, micro_batches=micro_batches).traffic.sent == pytest.approx(gathered_or_scattered * 3e6, abs=100)


def test_stage_3_gathers_the_networks_that_only_judge() -> None:
    whole = step("zero3", FIRST, SECOND).traffic.sent
    assert whole == pytest.approx(3 * 3e6 + 2 * 6e6, abs=100)
    twice = Network("second", SECOND.groups, requires_double_backward=True)
    assert step("zero3", FIRST, twice).traffic.sent == pytest.approx(3 * 3e6, abs=100)


def test_communication_hides_under_the_backward_pass_alone() -> None:
    # 6 ms under 75, 37.5, and 3.75 of backward pass.
    assert step("ddp", overlap=1.0).step == pytest.approx(0.1, abs=1e-6)
    assert step("ddp", overlap=0.5).hidden == pytest.approx(0.006)
    assert step("ddp", overlap=0.05).step == pytest.approx(0.1 + 0.006 - 0.00375, abs=1e-6)
    # Of three micro-batches, the last one's: 1.25 ms.
    assert step("ddp", overlap=0.05, micro_batches=3).hidden == pytest.approx(0.00125)
    # New weights wait for the optimizer.
    assert step("zero2", overlap=1.0).step == pytest.approx(0.103, abs=1e-6)
    # Weights of the forward pass are fetched ahead as well: 9 ms under 10.
    assert step("zero3", overlap=0.1).hidden == pytest.approx(0.009)
    assert step("zero3", overlap=0.01).hidden == pytest.approx(0.001)


def test_rare_updates_and_every_message_count() -> None:
    rare = [Update(("first",), 0.2, 0.1, 0.1), Update(("second",), 1, 0.4, 0.4)]
    slow = Cluster(4, 1e9, 0.001)
    found = step("ddp", FIRST, SECOND, updates=rare, cluster=slow)
    # A bucket of each update.
    assert found.traffic.collectives == pytest.approx(0.2 + 1)
    assert found.communication == pytest.approx(0.2 * 6e-3 + 12e-3 + 1.2e-3, rel=1e-3)
    together = step("ddp", FIRST, SECOND, updates=[Update(("first", "second"), 1, 0.5, 0.5)])
    assert together.traffic.sent == pytest.approx(1.5 * 12e6, abs=100)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_predictions_are_within_a_fifth_of_trainings(ranks: int, tmp_path: Path) -> None:
    job = {"model": {"resolution": 32, "width": 64}, "batch": 1, "turns": 6 if ranks == 1 else 15, "bytes": 2**23}
    measured = measure(tmp_path, job, ranks=ranks)
    # The slowest rank's: the others wait for it. The first turn warms up.
    turns = {
        kind: [max(of_ranks) for of_ranks in zip(*(rank[kind] for rank in measured), strict=True)][1:]
        for kind in measured[0]
    }
    cluster = Cluster(1, 1e9, 0.0)
    if ranks > 1:
        sent, latency = 2 * (ranks - 1) / ranks * job["bytes"], median(turns["latency"])
        # Latency is in the compute: ranks wait for each other there as often.
        cluster = Cluster(ranks, sent / (median(turns["large"]) - latency), 0.0)
    module = memory_program.make(job)
    networks, updates = footprint.networks(module), compute.updates(module, job["batch"])
    # Overlap 0: no core is idle while gradients are computed, so communication takes time from that in any case.
    found = [
        predicted(BY_NAME["ddp"], networks, updates, cluster, compute=seconds, overlap=0.0)
        for seconds in turns["compute"]
    ]
    # Of a turn, since a machine that others use is another one in the next turn.
    ratio = median(one.step / seconds for one, seconds in zip(found, turns["step"], strict=True))
    share = median(one.communication / one.step for one in found)
    print(
        f"{ranks} ranks: predicted over measured {ratio:.2f}; {share:.0%} of a step of {found[-1].step:.2f} s exchanges"
    )
    assert ratio == pytest.approx(1, abs=0.2)
    assert ranks == 1 or share > 0.02
