"""Optimizers and learning rates as options: closed forms, torch's own schedulers, exactness after a resume."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler
from torch.utils.data import DataLoader

from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.optimization import OptimizerKind, OptimizerOptions
from lightning_modules.core.saved import named_state, numbered_state, parameter_names
from tests.trainers import bare_trainer

SMALL: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": 8}


def test_schedules_are_their_closed_forms() -> None:
    at = [0, 5_000, 10_000, 20_000, 40_000, 60_000, 100_000]
    warm = {"lr": 0.1, "warmup_kimg": 10.0}

    def rates(**options: Any) -> list[float]:
        return [OptimizerOptions(**warm, **options).learning_rate(images, total_kimg=60.0) for images in at]

    assert rates() == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert rates(schedule="linear") == pytest.approx([0, 0.05, 0.1, 0.08, 0.04, 0, 0])
    assert rates(schedule="linear", hold_kimg=20.0, final_lr=0.02) == pytest.approx(
        [0, 0.05, 0.1, 0.1, 0.06, 0.02, 0.02]
    )
    assert rates(schedule="cosine", decay_kimg=110.0) == pytest.approx(
        [0, 0.05, 0.1, *(0.05 * (1 + math.cos(math.pi * p)) for p in (0.1, 0.3, 0.5, 0.9))]
    )
    # EDM2, eq. 67: alpha_ref / sqrt(max(t / t_ref, 1)).
    assert rates(schedule="inverse_sqrt", hold_kimg=20.0) == pytest.approx(
        [0, 0.05, 0.1, 0.1, 0.1 / math.sqrt(2), 0.1 / math.sqrt(3), 0.1 / math.sqrt(5)]
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_equal_torchs(schedule: Any) -> None:
    options = OptimizerOptions(lr=0.1, schedule=schedule, final_lr=0.01, decay_kimg=5.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs: LRScheduler = (
        CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01)
        if schedule == "cosine"
        else LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=50)
    )
    for step in range(51):
        assert options.learning_rate(100 * step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9), step
        optimizer.step()
        theirs.step()


def test_beta2_goes_the_way_of_the_learning_rate() -> None:
    options = OptimizerOptions(
        lr=1.0, beta1=0.5, beta2=0.9, schedule="cosine", hold_kimg=10.0, decay_kimg=30.0, final_beta2=0.99
    )
    for images in (0, 10_000, 13_000, 20_000, 30_000, 40_000):
        gone = 1 - options.learning_rate(images)
        assert options.betas(images) == (0.5, pytest.approx(0.9 + 0.09 * gone))
    assert OptimizerOptions(beta2=0.9, schedule="cosine").betas(1000) == (0.9, 0.9)
    assert options.with_extra_updates(4).final_beta2 == pytest.approx(0.99**0.8)


def test_options_out_of_range_are_named() -> None:
    for options, message in (
        ({"lr": -1.0}, "lr is -1.0; it must be 0 or more"),
        ({"beta1": 1.0}, "beta1 is 1.0; it must be 0 or more and less than 1"),
        ({"warmup_kimg": 5.0, "decay_kimg": 4.0}, "decay_kimg is 4.0; it must be more than warmup_kimg"),
        ({"final_beta2": 0.9}, "final_beta2 needs schedule linear or cosine, whose course it follows, not constant"),
        ({"schedule": "inverse_sqrt"}, "needs hold_kimg or warmup_kimg"),
    ):
        with pytest.raises(ValueError, match=message):
            OptimizerOptions(**options)
    with pytest.raises(ValueError, match="cosine needs decay_kimg"):
        OptimizerOptions(schedule="cosine").learning_rate(1000)


@pytest.mark.parametrize("kind", ["adam", "adamw", "radam", "muon"])
def test_a_network_trains_with_every_optimizer_and_its_state_goes_by_name(kind: OptimizerKind) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    options = OptimizerOptions(kind=kind, lr=1e-2, weight_decay=0.1)
    x = torch.randn(16, 4)

    def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (network(x) - x).square().mean().backward()
            optimizer.step()

    optimizer = options.optimizer(network)
    before = (network(x) - x).square().mean().item()
    steps(network, optimizer, 60)
    assert (network(x) - x).square().mean().item() < 0.7 * before
    # Saved by name, taken up by a fresh optimizer, and on as if nothing had been.
    again = copy.deepcopy(network)
    fresh = options.optimizer(again)
    saved = copy.deepcopy(named_state(optimizer.state_dict(), parameter_names(network, optimizer)))
    fresh.load_state_dict(numbered_state(saved, fresh, parameter_names(again, fresh), torch.contiguous_format))
    steps(network, optimizer, 3)
    steps(again, fresh, 3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_another_kind_of_optimizer_cannot_take_a_state_up() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    adam, muon = (OptimizerOptions(kind=kind).optimizer(network) for kind in ("adam", "muon"))
    saved = named_state(adam.state_dict(), parameter_names(network, adam))
    with pytest.raises(ValueError, match="of another kind than Muon"):
        numbered_state(saved, muon, parameter_names(network, muon), torch.contiguous_format)


class Rates(L.Callback):
    """The learning rate that each step was made with, and the weights after it."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(module: VAE, path: Path, first: int, until: int, resume: Path | None = None) -> Rates:
    images = torch.rand(20, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rates = Rates()
    trainer = bare_trainer(path, max_epochs=2 if resume else 1, callbacks=[rates])
    module.total_kimg = 0.08
    data = DataLoader([{"image": image} for image in images[first:until]], batch_size=None)
    trainer.fit(module, data, ckpt_path=resume, weights_only=False)
    trainer.save_checkpoint(path / f"{until}.ckpt")
    return rates


def scheduled() -> VAE:
    torch.manual_seed(0)
    module = VAE(**SMALL)
    module.optimizer = OptimizerOptions("adamw", lr=1e-3, weight_decay=0.01, warmup_kimg=0.016, schedule="cosine")
    return module


@pytest.mark.slow
def test_each_step_has_the_learning_rate_of_its_images_and_a_resumed_run_too(tmp_path: Path) -> None:
    whole, resumed = scheduled(), scheduled()
    rates = train(whole, tmp_path, 0, 20).rates
    assert rates[:6] == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3 * (1 + math.cos(math.pi / 16)) / 2])
    assert 0 < rates[-1] < 1e-4
    assert whole.learning_rates(whole.images_seen) == {"autoencoder": pytest.approx(0.0)}
    first = train(scheduled(), tmp_path, 0, 7).rates
    assert first + train(resumed, tmp_path, 7, 20, tmp_path / "7.ckpt").rates == rates
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
