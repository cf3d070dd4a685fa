"""A small GAN trained on noise, for tests of callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

from launch.callbacks.clock import Clock
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions

BATCH = 8


class Images(L.LightningDataModule):
    """Noise pictures; remembers where training stands like the real data module."""

    position = 0

    def train_dataloader(self) -> Any:
        return Endless(self.position)

    def consumed(self, position: int) -> None:
        self.position = position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict["position"]


class Endless:
    def __init__(self, position: int) -> None:
        self.position = position

    def __iter__(self) -> Iterator[dict[str, Any]]:
        position = self.position
        while True:
            images = torch.rand(BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(position)) * 2 - 1
            position += BATCH
            yield {"image": images, "position": position}


def small() -> DCGAN:
    torch.manual_seed(0)
    return DCGAN(
        resolution=32,
        channels=1,
        latent_dim=8,
        generator=GeneratorOptions(8, spectral_norm=True),
        discriminator=DiscriminatorOptions(8, spectral_norm=True),
    )


def train(path: Path, kimg: float, *callbacks: L.Callback, checkpoint: Path | None = None) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=path,
        callbacks=[Clock(kimg, 1.0), *callbacks],
    )
    trainer.fit(small(), Images(), ckpt_path=checkpoint, weights_only=True)
    return trainer
