"""The arithmetic of a plan, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from launch.planning.memory import (
    BUCKET_BYTES,
    FP32,
    MAX_LIVE,
    STRATEGIES,
    Group,
    Network,
    Row,
    Share,
    first_that_fits,
    held,
    images_per_micro_batch,
    rows,
    together,
)
from launch.strategies import messages
from launch.strategies.zero import MultiNetworkZeRO

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def adam(*numels: int, **options: Any) -> Network:
    return Network("net", (Group(numels, 8 * sum(numels) + 4 * len(numels), 8.0, 4),), **options)


def test_stages_shard_what_the_paper_says() -> None:
    network, ranks, options = adam(*[1000] * 64), 8, {"ranks": 8, "reduce_bucket": 0}
    whole = 64_000 * 4
    zero1, zero3 = (held(network, BY_NAME[name], **options) for name in ("zero1", "zero3"))
    assert zero1.stays.weights == whole
    assert zero1.stays.masters == whole // ranks
    assert zero1.stays.optimizer == 2 * whole // ranks + 4
    assert zero1.passes.gradients == whole // ranks
    assert zero3.stays == Share(whole // ranks, whole // ranks, whole // ranks, 2 * whole // ranks + 4)
    assert zero3.passes.buffers == whole


def test_a_parameter_across_the_cut_is_kept_on_both_sides() -> None:
    # Slices of ten: the first rank has a part of both 7 and 10, the second of 10 and 3.
    assert held(adam(7, 10, 3), BY_NAME["zero2"], ranks=2).passes.gradients == 17 * 4
    assert held(adam(10, 7, 3), BY_NAME["zero2"], ranks=2).passes.gradients == 10 * 4


def test_padding_counts() -> None:
    # 21 elements on four ranks: slices of 6, aligned to two elements a rank; stage 3 cuts each parameter by itself.
    network = adam(20, 1)
    assert held(network, BY_NAME["zero1"], ranks=4).stays.weights == 24 * 4
    assert held(network, BY_NAME["zero1"], ranks=4).stays.masters == 6 * 4
    assert held(network, BY_NAME["zero3"], ranks=4).stays.weights == (5 + 1) * 4


def test_offloading_moves_to_the_host_and_loses_nothing() -> None:
    network = adam(600, 400, averages=1, buffer_bytes=40)
    on, off = (held(network, BY_NAME[name], ranks=2) for name in ("zero3", "zero3_offload"))
    for what in ("weights", "masters", "optimizer", "average"):
        assert getattr(on.stays, what) == getattr(off.stays, what) + getattr(off.host, what)
    assert off.stays.weights == off.stays.average == 40


def test_a_network_with_double_backward_stays_at_stage_2() -> None:
    for suffix in ("", "_offload"):
        twice = held(adam(100, requires_double_backward=True), BY_NAME[f"zero3{suffix}"], ranks=2)
        assert twice == held(adam(100), BY_NAME[f"zero2{suffix}"], ranks=2)
        assert twice != held(adam(100), BY_NAME[f"zero3{suffix}"], ranks=2)


def test_a_network_that_nothing_trains_is_whole_everywhere() -> None:
    encoder = Network("encoder", (), frozen=(500,), buffer_bytes=8)
    for strategy in STRATEGIES:
        assert held(encoder, strategy, ranks=4).stays == Share(weights=2008)


def test_every_average_counts() -> None:
    network = {count: adam(600, 400, averages=count, buffer_bytes=40) for count in (0, 1, 3)}
    for strategy in STRATEGIES:
        none, one, three = (held(network[count], strategy, ranks=2) for count in (0, 1, 3))
        average = one.stays.average + one.host.average
        assert none.stays.average + none.host.average == 0
        assert average > 0
        assert three.stays.average + three.host.average == 3 * average


def test_a_network_that_zero_refuses_has_rows_without_zero() -> None:
    refused = adam(100, zero_refusal="net: Muon needs whole weight matrices")
    assert [row.strategy.name for row in rows([adam(100), refused], STRATEGIES, ranks=2)] == ["ddp", "zero0"]
    assert len(rows([adam(100)], STRATEGIES, ranks=2)) == len(STRATEGIES)


def test_networks_are_updated_one_after_the_other() -> None:
    first, second = (held(adam(n), BY_NAME["ddp"], ranks=1) for n in (100, 300))
    device, host = together([first, second])
    assert device == Share(weights=1600, gradients=1200, optimizer=2 * 1600 + 8)
    assert host == Share()


def test_defaults_are_those_of_the_strategies() -> None:
    # It takes seconds to import.
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    options = MultiNetworkZeRO()._engine_config(3, clip=None, bf16=False)["zero_optimization"]
    assert options["reduce_bucket_size"] * FP32 == BUCKET_BYTES == messages.BUCKET_BYTES
    assert DeepSpeedZeroConfig(**options).max_live_parameters == MAX_LIVE


def test_the_first_strategy_that_fits() -> None:
    table = [Row(BY_NAME[name], Share(weights=size), Share()) for name, size in (("ddp", 900), ("zero2", 500))]
    activations = {False: 300, True: 100}
    chosen = {
        memory: first_that_fits(table, activations, memory, checkpointing=False) for memory in (1200, 1100, 700, 500)
    }
    assert chosen == {1200: (table[0], False), 1100: (table[1], False), 700: (table[1], True), 500: None}
    assert first_that_fits(table, activations, 1000, checkpointing=True) == (table[0], True)
    assert first_that_fits(table, {False: 300}, 700, checkpointing=False) is None


def test_a_batch_must_come_out_even() -> None:
    assert images_per_micro_batch(64, ranks=4, micro_batches=2) == 8
    with pytest.raises(ValueError, match="64 images cannot be cut into 3 ranks x 2 micro-batches.*multiple of 6"):
        images_per_micro_batch(64, ranks=3, micro_batches=2)


def test_rows_are_for_one_rank() -> None:
    table = {row.strategy.name: row.device for row in rows([adam(1000)], STRATEGIES, ranks=4)}
    assert table["zero1"].optimizer == table["ddp"].optimizer // 4 + 3
