"""A tiny family two networks of which are updated together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.core.abilities import Batch, BatchSpec, Preview
from lightning_modules.core.family import ImageFamily, Losses
from lightning_modules.core.optimization import OptimizerOptions

#: Factor of the losses: their fp16 gradients times the first loss scale, 2**16, stay finite.
SMALL = 0.01


class Mirror(nn.Module):
    """A picture [N, 1, 32, 32] to another one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).float().tanh()


class Cycle(ImageFamily):
    """Two networks that are updated together by a loss that runs through both, one of them twice; and a critic of one.

    ``whole``: one network that contains both. ``burst``: in that step, the second network's gradients are infinite
    on the last rank, but neither the loss nor the first one's.
    """

    def __init__(self, *, whole: bool = False, burst: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.ab, self.ba, self.critic = Mirror(), Mirror(), Mirror()
        if whole:
            self.both = nn.ModuleDict({"ab": self.ab, "ba": self.ba})
        self.whole, self.burst = whole, burst

    def optimization(self) -> dict[str, OptimizerOptions]:
        names = ("both", "critic") if self.whole else ("ab", "ba", "critic")
        return dict.fromkeys(names, OptimizerOptions(lr=1e-3))

    def generating_networks(self) -> tuple[str, ...]:
        return ("ab", "ba")

    def batch_spec(self) -> BatchSpec:
        return BatchSpec(channels=1, resolution=32)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        return {}

    def generate(self, index: Tensor, *, seed: int) -> Tensor:
        grey = torch.linspace(-1, 1, 32).expand(len(index), 1, 32, 32)
        return self.ba(self.ab(grey))

    def step(self, batch: Batch) -> None:
        self.update("critic", self.critic_losses, batch)
        self.update("both" if self.whole else ("ab", "ba"), self.losses, batch)

    def critic_losses(self, batch: Batch) -> Losses:
        with torch.no_grad():
            made = self.ab(batch["image"])
        return {"loss": SMALL * (self.critic(made).square().mean() - self.critic(batch["image"]).mean())}

    def losses(self, batch: Batch) -> Losses:
        there = self.ab(batch["image"])
        back = self.ba(there)
        if self.steps_done == self.burst and self.global_rank == self.trainer.world_size - 1:
            # Infinite in the backward alone, after the gradient has left the other network's way.
            back = back + Burst.apply(self.ba.layers[0].bias).sum() * 0.0
        again = self.ab(back)
        cycle, critic = (back - batch["image"]).abs().mean(), self.critic(again).mean()
        return {"loss": SMALL * (cycle + 0.1 * critic), "cycle": cycle, "critic": critic}


class Burst(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.full_like(gradient, torch.inf)
