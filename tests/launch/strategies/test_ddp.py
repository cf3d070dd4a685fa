"""Two gloo ranks against one process: the same training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from launch.strategies.ddp import MultiNetworkDDP
from launch.strategies.messages import buckets
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.family import ImageFamily
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from tests.trainers import bare_trainer

GLOBAL_BATCH, STEPS = 8, 6


class GlobalBatches(L.LightningDataModule):
    """The same global batches whatever the number of ranks; a rank takes its rows, interleaved like the stream's."""

    def train_dataloader(self) -> Any:
        return Rows(self.trainer.global_rank, self.trainer.world_size)  # type: ignore[union-attr]


class Rows:
    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        for step in range(STEPS):
            images = torch.rand(GLOBAL_BATCH, 1, 32, 32, generator=generator) * 2 - 1
            yield {"image": images[self.rank :: self.ranks], "position": (step + 1) * GLOBAL_BATCH}


def train(module: ImageFamily, tmp_path: Path, **options: Any) -> ImageFamily:
    trainer = bare_trainer(tmp_path, **options)
    trainer.fit(module, GlobalBatches())
    return module


def critic_alone(**options: Any) -> ImageFamily:
    return CriticAlone(
        resolution=32,
        channels=1,
        latent_dim=8,
        loss="wgan_gp",
        generator=GeneratorOptions(8),
        discriminator=DiscriminatorOptions(8, normalization="layer"),
        **options,
    )


class CriticAlone(DCGAN):
    """Trains the critic against a generator in eval mode: no batch statistics, which are each rank's own."""

    def step(self, batch: Any) -> None:
        self.generator.eval()
        self.update("discriminator", self.discriminator_losses, batch)


def vae_without_batch_norm(**options: Any) -> ImageFamily:
    module = VAE(resolution=32, channels=1, autoencoder=AutoencoderOptions(8), latent_dim=8, **options)
    for network in module.modules():
        for name, child in network.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(network, name, torch.nn.GroupNorm(1, child.num_features))
    return module


@pytest.mark.slow
@pytest.mark.parametrize("make", [critic_alone, vae_without_batch_norm])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_ranks_train_like_one(make: Any, micro_batches: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = make(micro_batches=1)
    two = make(micro_batches=micro_batches)
    two.load_state_dict(one.state_dict())
    before = copy.deepcopy(one.state_dict())
    train(one, tmp_path, devices=1)
    train(two, tmp_path, devices=2, strategy=MultiNetworkDDP(start_method="spawn"))
    moved = 0.0
    for name, value in one.state_dict().items():
        moved = max(moved, (value - before[name]).abs().max().item())
        torch.testing.assert_close(
            two.state_dict()[name], value, rtol=1e-3, atol=2e-5, msg=lambda t, n=name: f"{n}: {t}"
        )
    assert moved > 5e-4


def test_buckets_hold_every_tensor_once_and_one_dtype_each() -> None:
    tensors = [torch.zeros(5), torch.zeros(3, dtype=torch.long), torch.zeros(2), torch.zeros(1, dtype=torch.long)]
    found = list(buckets(tensors))
    assert sorted(id(t) for bucket in found for t in bucket) == sorted(map(id, tensors))
    assert all(len({t.dtype for t in bucket}) == 1 for bucket in found)
