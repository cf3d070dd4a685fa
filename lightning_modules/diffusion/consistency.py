"""Consistency models: from noise to a picture in one or two evaluations."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from gesso.common.ranges import NonNegative, Positive, Range
from lightning_modules.core.dropout import DropoutMasks
from lightning_modules.core.family import ImageFamily, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.diffusion.edm import EDM
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import beside


class ECT(EDM):
    """Easy consistency tuning (Geng et al. 2024, arXiv:2406.14548) of a trained EDM.

    The network learns to give the same picture at noise level t and at a lower one r, of the same picture and noise; r
    comes closer to t from stage to stage: r = t (1 - q^-(s+1) (1 + 8 sigmoid(-t))), s being the number of the stage.

    Args:
        teacher: the run of an ``EDM`` with the same network, whose averaged weights it begins with; null: random ones.
        P_mean, P_std: of ln t in training.
        q: how much closer r comes to t with each stage.
        stage_kimg: length of a stage, in thousands of images.
        huber: c of the distance sqrt(|d|^2 + c^2) - c; 0: the plain norm.
        middle: the last noise level of samplings of 2 steps or more.
        options: those of ``EDM``, ``DenoisingFamily`` and ``ImageFamily``.
    """

    taught_by = (EDM,)

    def __init__(
        self,
        *,
        teacher: str | None = None,
        P_mean: float = -1.1,
        P_std: Positive = 2.0,
        q: float = 2.0,
        stage_kimg: Positive = 3200.0,
        huber: NonNegative = 0.0,
        middle: Positive = 0.821,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(kind="radam", lr=1e-4),
        sampling: SamplingOptions = SamplingOptions("consistency", 2),
        **options: Any,
    ) -> None:
        super().__init__(P_mean=P_mean, P_std=P_std, network=network, optimizer=optimizer, sampling=sampling, **options)
        if q not in Range(1, above=True):
            raise ValueError(f"q is {q}; it must be more than 1")
        if self.uncertainty:
            raise ValueError("uncertainty is of an EDM's loss: leave it out")
        if not middle < self.levels[1]:
            raise ValueError(f"middle is {middle}; it must be less than sigma_max ({self.levels[1]})")
        self.save_hyperparameters()
        self.teacher, self.q, self.stage_kimg, self.huber, self.middle = teacher, q, stage_kimg, huber, middle

    def runs(self) -> dict[str, str]:
        return {"teacher": self.teacher or ""}

    def take_run(self, option: str, module: ImageFamily) -> None:
        self.begin_with(module)

    def sigmas(self, steps: int) -> Tensor:
        """From ``sigma_max``, evenly in ln sigma to ``middle``, then 0; a single step goes to 0 at once."""
        ends = math.log(self.levels[1]), math.log(self.middle)
        levels = torch.linspace(*ends, steps, dtype=torch.float64).exp()
        levels[0] = self.levels[1]
        return torch.cat([levels, levels.new_zeros(1)])

    @property
    def stage(self) -> int:
        """Number s of the stage, from 0: a function of the images seen."""
        return int(self.images_seen / (1000 * self.stage_kimg))

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return self.stage

    def lower(self, t: Tensor) -> Tensor:
        """The noise level r below each t, [N]; 0 at the earliest."""
        return (t * (1 - self.q ** -(self.stage + 1) * (1 + 8 * torch.sigmoid(-t)))).clamp(min=0)

    def _losses(
        self, images: Tensor, labels: Tensor | None, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Losses:
        """The distance of the pictures at t and at r, which learns nothing, divided by t - r."""
        t, r = sigma, self.lower(sigma)
        masks = DropoutMasks(images.device)
        with torch.no_grad():
            # At 0 the network's answer is the picture itself, but its logarithm is none.
            below, _ = self._denoised(images + beside(r, images) * noise, r.clamp(min=1e-4), labels, augment=augment)
            target = torch.where(beside(r, images) > 0, below, images)
        masks.again()
        denoised, _ = self._denoised(images + beside(t, images) * noise, t, labels, augment=augment)
        squares = (denoised - target).square().flatten(1).sum(1)
        # The root's slope at 0 is infinite.
        distance = (squares + self.huber**2).clamp(min=1e-12).sqrt() - self.huber
        return {"loss": (distance / (t - r)).mean(), "distance": distance.mean()}
