"""What a plan says of memory, against the allocator and against two training ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import SGD, Adafactor, Adam, Optimizer

from launch.callbacks.ema import EMA
from launch.planning import footprint
from launch.planning.memory import (
    STRATEGIES,
    Strategy,
    held,
    rows,
)
from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.averages import Average
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.profiles import HalfLife
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from lightning_modules.networks.dcgan import DiscriminatorOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
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
    # ddp keeps the memory of its buckets, which its networks share.
    standing = between = 0
    for network in footprint.networks(make(job(strategy.name, micro_batches))):
        options = {"ranks": 2, "micro_batches": micro_batches, "reduce_bucket": BUCKET}
        planned = held(network, strategy, **options)
        share = planned.stays.plus(planned.passes).plus(planned.host)
        for what in ("weights", "masters", "gradients", "optimizer", "average"):
            found = max(rank["networks"][network.name][what] for rank in measured)
            assert getattr(share, what) == pytest.approx(found, rel=0.05), (network.name, what)
        standing += planned.stays.total + planned.host.total
        between = max(between, 0 if strategy.stage else planned.passes.gradients)
    # Nothing is forgotten: all tensors there are when training rests.
    assert standing + between == pytest.approx(max(rank["total"] for rank in measured), rel=0.05)


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
@pytest.mark.slow
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
    assert [networks[name].averages for name in ("generator", "discriminator")] == [1, 0]


def test_all_averages_and_frozen_helpers_count() -> None:
    class WithTeacher(VAE):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._encoder = Frozen(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)))

        def own_averages(self) -> dict[str, Average]:
            return {"teacher": Average(HalfLife(1.0), ("autoencoder",))}

    module = WithTeacher(resolution=32, autoencoder=AutoencoderOptions(8), latent_dim=8)
    autoencoder, encoder = footprint.networks(module, ema=2)
    assert (autoencoder.name, autoencoder.averages) == ("autoencoder", 3)
    # Weight and bias of both layers, and the running mean and variance (fp32) and the counter (int64) of the second.
    assert (encoder.name, encoder.trained, encoder.averages) == ("encoder", 0, 0)
    assert encoder.weight_bytes == 4 * (3 * 5 + 5 + 5 + 5) + 4 * (5 + 5) + 8


def test_the_trainers_averages_are_counted() -> None:
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    ema = EMA(half_life_kimg=[1.0, 10.0], widths=[0.05])
    assert footprint.ema_count(L.Trainer(callbacks=[ema], **options)) == 3
    assert footprint.ema_count(L.Trainer(**options)) == 0


@pytest.mark.parametrize(
    ("options", "refusal"),
    [({"kind": "muon"}, "autoencoder: Muon needs whole weight matrices"), ({"kind": "adam"}, None)],
)
def test_what_zero_refuses_is_known_beforehand(options: dict[str, Any], refusal: str | None) -> None:
    module = VAE(resolution=32, autoencoder=AutoencoderOptions(8), latent_dim=8, optimizer=OptimizerOptions(**options))
    (network,) = footprint.networks(module)
    assert (network.zero_refusal or "").startswith(refusal or "")
    assert bool(network.zero_refusal) == bool(refusal)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        (DCGAN, {"resolution": 64, "width": 32, "normalization": "layer", "r1_gamma": 1.0, "n_critic": 3}),
        (VAE, {"resolution": 64}),
    ],
    ids=["dcgan", "vae"],
)
@pytest.mark.slow
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


@pytest.mark.slow
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
        footprint.ready(module, lambda *_: None),
        module.freezing_others(name),
        footprint._no_gradients_kept([getattr(module, name)]),
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


@pytest.mark.slow
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


def test_a_network_that_begins_late_is_counted() -> None:
    small, discriminator = KLAutoencoderOptions(32, (1, 1), 1), PatchDiscriminatorOptions(8, 1)
    options: dict[str, Any] = {"autoencoder": small, "discriminator": discriminator, "perceptual_weight": 0.0}
    late, at_once = (AutoencoderKL(resolution=16, discriminator_start_kimg=start, **options) for start in (600.0, 0.0))
    found = footprint.activations(late, 2, autocast=False)
    assert found == footprint.activations(at_once, 2, autocast=False)
    assert found.keys() == {"autoencoder", "discriminator"}
    assert late.images_seen == 0
