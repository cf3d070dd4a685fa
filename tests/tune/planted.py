"""A family whose metric is a known function of two loss weights: what a search must find is known."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from lightning_modules.core.family import Batch, ImageFamily, Losses, Preview

#: The best weights.
FIRST, SECOND = 3.0, 0.2


class Planted(ImageFamily):
    """Trains one number, and measures how far its weights are from the planted ones.

    Args:
        first, second: the weights.
        depth: an integer, which must not be drawn from a float's range.
        kind: a choice on which other options may depend.
        diverges_at: images after which the metric is no number; 0: never.
        lr: Adam's learning rate.
        options: those of ``ImageFamily``.
    """

    def __init__(
        self,
        first: float = 1.0,
        second: float = 1.0,
        depth: int = 1,
        kind: str = "plain",
        diverges_at: int = 0,
        lr: float = 1e-2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if first <= 0 or second <= 0:
            raise ValueError(f"first is {first} and second {second}; both must be more than 0")
        self.save_hyperparameters()
        self.network = nn.Conv2d(1, 1, 1)

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), self.hparams["lr"])}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step(self, batch: Batch) -> None:
        self.update("network", lambda part: {"loss": self.network(part["image"]).square().mean()}, batch)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        return {"samples": Preview(held_out["image"], len(held_out["image"]))}

    def held_out_losses(self, batch: Batch) -> Losses:
        first, second = self.hparams["first"], self.hparams["second"]
        away = math.log(first / FIRST) ** 2 + math.log(second / SECOND) ** 2
        if 0 < self.hparams["diverges_at"] <= self.images_seen:
            away = math.nan
        # Falls as training goes on, alike for all weights: what is ahead early stays ahead.
        return {"planted": torch.tensor(away + 10 / (1 + self.images_seen)), "first": torch.tensor(float(first))}
