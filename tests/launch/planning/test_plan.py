"""`gesso plan`: its arithmetic by hand, its activations against the allocator, all of it against two training ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adafactor, Adam, Optimizer

from gesso.cli.main import main
from launch.planning import footprint
from launch.planning.memory import (
    BUCKET_BYTES,
    FP32,
    MAX_LIVE,
    STRATEGIES,
    Group,
    Network,
    Row,
    Share,
    Strategy,
    first_that_fits,
    held,
    images_per_micro_batch,
    rows,
    together,
)
from launch.strategies import ddp
from launch.strategies.zero import MultiNetworkZeRO
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from tests.launch.planning.memory_program import make, measure_ranks

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}
#: Small beside the networks, so that it hides nothing.
BUCKET = 1_000_000


# ---- against two gloo ranks -----------------------------------------------------------------------------------------


def job(strategy: str, micro_batches: int) -> dict[str, Any]:
    """Two networks, three optimizer groups of two kinds; R1 keeps the discriminator at stage 2."""
    model = {"resolution": 32, "channels": 1, "width": 64, "latent_dim": 8, "r1_gamma": 1.0, "normalization": "layer"}
    return {
        "name": f"{strategy}-{micro_batches}",
        "strategy": strategy,
        "family": "mixed",
        "model": {**model, "micro_batches": micro_batches},
        "batch": 4,
        "steps": 3,
        "measure": True,
        "zero": {"reduce_bucket_size": BUCKET},
    }


def assert_as_planned(measured: list[dict[str, Any]], strategy: Strategy, micro_batches: int) -> None:
    standing = 0
    for network in footprint.networks(make(job(strategy.name, micro_batches))):
        options = {"ranks": 2, "micro_batches": micro_batches, "reduce_bucket": BUCKET}
        planned = held(network, strategy, **options)
        share = planned.stays.plus(planned.passes).plus(planned.host)
        for what in ("weights", "masters", "gradients", "optimizer", "average"):
            found = max(rank["networks"][network.name][what] for rank in measured)
            assert getattr(share, what) == pytest.approx(found, rel=0.05), (network.name, what)
        standing += planned.stays.total + planned.host.total
    # Nothing is forgotten: all tensors there are when training rests.
    assert standing == pytest.approx(max(rank["total"] for rank in measured), rel=0.05)


CASES = [
    *((strategy.name, 1) for strategy in STRATEGIES),
    *((strategy.name, 2) for strategy in STRATEGIES if strategy.stage),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return measure_ranks(tmp_path_factory.mktemp("ranks"), [job(*case) for case in CASES], ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "micro_batches"), CASES)
def test_two_ranks_hold_what_was_planned(name: str, micro_batches: int, measured: dict[str, Any]) -> None:
    assert_as_planned(measured[f"{name}-{micro_batches}"], BY_NAME[name], micro_batches)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_process_grows_by_what_was_planned(checkpointing: bool, tmp_path: Path) -> None:
    model = {"resolution": 256, "width": 16, "gradient_checkpointing": checkpointing}
    training = {"name": "one", "strategy": "ddp", "model": model, "batch": 16, "steps": 2}
    (measured,) = measure_ranks(tmp_path, [training], ranks=1, frugal=True)["one"]
    module = make(training)
    (row,) = rows(footprint.networks(module), [BY_NAME["ddp"]], ranks=1)
    planned = row.device.total + max(footprint.activations(module, 16, autocast=False).values())
    assert planned == pytest.approx(measured["resident_peak"] - measured["resident_before"], rel=0.1)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


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
    network = adam(600, 400, averaged=True, buffer_bytes=40)
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


def test_networks_are_updated_one_after_the_other() -> None:
    first, second = (held(adam(n), BY_NAME["ddp"], ranks=1) for n in (100, 300))
    device, host = together([first, second])
    assert device == Share(weights=1600, gradients=1200, optimizer=2 * 1600 + 8)
    assert host == Share()


def test_defaults_are_those_of_the_strategies() -> None:
    # It takes seconds to import.
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    options = MultiNetworkZeRO()._engine_config(3, clip=None, bf16=False)["zero_optimization"]
    assert options["reduce_bucket_size"] * FP32 == BUCKET_BYTES == ddp.BUCKET_BYTES
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


# ---- measured on the family -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: Adam(p, fused=True),
        lambda p: Adam(p, amsgrad=True),
        lambda p: SGD(p, 0.1),
        lambda p: SGD(p, 0.1, momentum=0.9),
        Adafactor,
    ],
    ids=["adam", "amsgrad", "sgd", "momentum", "adafactor"],
)
def test_states_are_those_of_a_real_step(optimizer: Any) -> None:
    class Family(VAE):
        def optimizers_by_network(self) -> dict[str, Optimizer]:
            return {"autoencoder": optimizer(self.autoencoder.parameters())}

    module = Family(resolution=32, autoencoder=AutoencoderOptions(8), latent_dim=8)
    real = module.optimizers_by_network()["autoencoder"]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    real.step()
    states = [value for state in real.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    (network,) = footprint.networks(Family(resolution=32, autoencoder=AutoencoderOptions(8), latent_dim=8))
    (group,) = network.groups
    assert group.state_bytes == sum(state.nbytes for state in states)
    flat = torch.nn.Parameter(torch.zeros(12345))
    flat.grad = torch.ones_like(flat)
    real = optimizer([flat])
    real.step()
    if not isinstance(real, Adafactor):
        assert group.flat_state_bytes(12345) == sum(
            value.nbytes for value in real.state[flat].values() if isinstance(value, torch.Tensor)
        )


def test_sizes_are_the_networks_own() -> None:
    module = DCGAN(
        resolution=32, latent_dim=8, loss="wgan_gp", discriminator=DiscriminatorOptions(normalization="layer")
    )
    networks = {network.name: network for network in footprint.networks(module)}
    for name, network in networks.items():
        own = getattr(module, name)
        assert network.trained == sum(network.numels) == sum(p.numel() for p in own.parameters())
        assert network.weight_bytes == sum(t.nbytes for t in [*own.parameters(), *own.buffers()])
    assert [networks[name].requires_double_backward for name in ("generator", "discriminator")] == [False, True]
    assert [networks[name].averaged for name in ("generator", "discriminator")] == [True, False]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        (DCGAN, {"resolution": 64, "width": 32, "normalization": "layer", "r1_gamma": 1.0, "n_critic": 3}),
        (VAE, {"resolution": 64}),
    ],
    ids=["dcgan", "vae"],
)
def test_activations_are_what_the_allocator_saw(family: Any, options: dict[str, Any], checkpointing: bool) -> None:
    module = family.from_options({**options, "gradient_checkpointing": checkpointing})
    planned = footprint.activations(module, 16, autocast=False)
    batch = footprint.example_batch(module, 16)
    losses = {
        "discriminator": "discriminator_losses",
        "generator": "generator_losses",
        "autoencoder": "losses",
    }
    assert planned.keys() == module.optimizers_by_network().keys()
    for name, bytes_planned in planned.items():
        allocated = allocator_peak(module, name, getattr(module, losses[name]), batch)
        # Kernels allocate a little for themselves, which no one sees from outside.
        assert 0.85 < bytes_planned / allocated < 1.02, name


def test_following_a_step_changes_nothing() -> None:
    module = DCGAN(resolution=32, loss="wgan", n_critic=3)
    before = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    first = footprint.activations(module, 4, autocast=True)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.requires_grad
        assert parameter.grad is None
    assert (module._trainer, module.steps_done) == (None, 0)
    assert footprint.activations(module, 4, autocast=True) == first


def allocator_peak(module: Any, name: str, losses: Any, batch: dict[str, Any]) -> int:
    """Most bytes that torch's CPU allocator had given out at once, by the profiler's record of it."""
    given = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
    with (
        footprint._ready(module, lambda *_: None),
        module._only(name),
        footprint._no_gradients_kept(getattr(module, name)),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        losses(batch)["loss"].backward()
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert peak > 0
    return peak + given


def test_checkpointing_and_autocast_save_memory() -> None:
    module = VAE(resolution=128, autoencoder=AutoencoderOptions(16))
    checkpointed = footprint.with_checkpointing(module, True)
    assert checkpointed is not None
    plain, fewer, half = (
        footprint.activations(family, 64, autocast=autocast)["autoencoder"]
        for family, autocast in ((module, False), (checkpointed, False), (module, True))
    )
    assert fewer < 0.8 * plain
    assert half < 0.8 * plain


# ---- the command ----------------------------------------------------------------------------------------------------

PLAN = ["plan", "--config", "mnist-dcgan", "--model.generator.width", "8", "--model.discriminator.width", "8"]


def test_a_plan_needs_neither_data_nor_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    here = ["--data.path", str(tmp_path / "nowhere")]
    assert main([*PLAN, *here, "--devices", "2", "--nodes", "2", "--memory", "24"]) == 0
    out = capsys.readouterr().out
    assert "DCGAN on 4 ranks (2 x 2), 8 images at once on each: global batch 32" in out
    assert "bf16-mixed" in out
    module = DCGAN.from_options({"resolution": 32, "channels": 1, "width": 8, "latent_dim": 64, "num_classes": 10})
    table = {line.split()[0]: line for line in out.splitlines() if line}
    for name in ("generator", "discriminator"):
        assert f"{sum(p.numel() for p in getattr(module, name).parameters()):,}" in table[name]
    assert all(strategy.name in table for strategy in STRATEGIES)
    assert "discriminator: differentiated twice, so at stage 2 under zero3" in out
    assert out.splitlines()[-1].startswith("the first that fits into 24 GiB")
    assert out.splitlines()[-1].endswith("--trainer.strategy ddp")
    assert "GESSO_RUN" not in os.environ


def test_a_plan_follows_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    config = "{zero_optimization: {reduce_bucket_size: 26214400}}"
    strategy = f"{{class_path: launch.strategies.zero.MultiNetworkZeRO, init_args: {{config: {config}}}}}"
    overrides = ["--trainer.devices", "4", "--trainer.precision", "32-true", "--trainer.strategy", strategy]
    assert main([*PLAN, *overrides, "--memory", "0.001"]) == 0
    out = capsys.readouterr().out
    assert "on 4 ranks (1 x 4)" in out
    assert "fp32 throughout" in out
    zero2 = next(line for line in out.splitlines() if line.startswith("zero2 "))
    assert "100.0 MiB" in zero2
    assert out.splitlines()[-1].startswith("nothing fits into 0.001 GiB; the least is ddp")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["plan"], "name a recipe: gesso plan --config RECIPE"),
        (["plan", "--config", "mnist-dcgam"], "did you mean mnist-dcgan"),
        ([*PLAN, "--devices", "0"], "--devices 0: must be more than 0"),
        ([*PLAN, "--memory", "-1"], "--memory -1.0: must be more than 0"),
        ([*PLAN, "--devices", "3"], "a global batch of 32 images cannot be cut into 3 ranks"),
        (
            [*PLAN, "--trainer.precision", "bf16-true"],
            "precision bf16-true: a plan knows 32-true, bf16-mixed, 16-mixed",
        ),
        ([*PLAN, "--model.widht", "8"], "widht"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_other_verbs_still_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fetch", "--list", "--devices"])
    assert end.value.code == 2
    assert "unrecognized arguments: --devices" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    script = (
        "import sys\nfrom gesso.cli.main import main\n"
        "try:\n    main(['plan', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'rich'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--memory GIB" in done.stdout


def test_rows_are_for_one_rank() -> None:
    table = {row.strategy.name: row.device for row in rows([adam(1000)], STRATEGIES, ranks=4)}
    assert table["zero1"].optimizer == table["ddp"].optimizer // 4 + 3
