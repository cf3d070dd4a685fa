"""Flow matching on straight paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gesso.common.ranges import Positive
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import FLOW, Path, beside, flow_sigmas
from lightning_modules.samplers.stepping import Denoiser
from lightning_modules.samplers.wrappers import flow_denoiser


class Flow(DenoisingFamily):
    """Flow matching on straight paths (Lipman et al. 2023, arXiv:2210.02747; rectified flow: Liu et al. 2023).

    Trains the velocity v(z, t) = e - x0 at z = (1 - t) x0 + t e: the data are at t = 0, the noise at t = 1. Times are
    logit-normal (Esser et al. 2024, arXiv:2403.03206, eq. 19).

    Args:
        time_mean, time_std: of logit t in training.
        shift: bends the sampler's times to the noisy end; above 1 for large images.
        options: those of ``DenoisingFamily`` and ``ImageFamily``.
    """

    path: Path = FLOW

    def __init__(
        self,
        *,
        time_mean: float = 0.0,
        time_std: Positive = 1.0,
        shift: Positive = 1.0,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3),
        sampling: SamplingOptions = SamplingOptions("heun", 18),
        **options: Any,
    ) -> None:
        super().__init__(network=network, optimizer=optimizer, sampling=sampling, **options)
        if network.architecture == "edm2":
            raise ValueError("the architecture edm2 is for inputs of variance 1, which a flow's are not: train an EDM")
        self.save_hyperparameters()
        self.time_mean, self.time_std, self.shift = time_mean, time_std, shift
        self.time_scale = network.time_scale

    def sigmas(self, steps: int) -> Tensor:
        return flow_sigmas(steps, self.shift)

    def denoiser(self, labels: Tensor | None) -> Denoiser:
        return flow_denoiser(lambda z, time: self.network(z, time, labels), time_scale=self.time_scale)

    def losses(self, batch: Batch) -> Losses:
        """The squared error of the velocity."""
        images = batch["image"]
        labels = self.partly_hidden_labels(batch)
        times = (self.time_mean + self.time_std * self.randn(len(images))).sigmoid()
        return self._losses(images, labels, times, self.randn(*images.shape))

    def held_out_losses(self, batch: Batch) -> Losses:
        labels = self.labels_of(batch)
        times = (self.time_mean + self.time_std * torch.special.ndtri(self.spread(batch))).sigmoid()
        return self._losses(batch["image"], labels, times, self.held_out_noise(batch))

    def _losses(self, images: Tensor, labels: Tensor | None, times: Tensor, noise: Tensor) -> Losses:
        # In bf16-true, images come in bf16.
        images = in_full_precision(images)
        z = images.lerp(noise, beside(times, images))
        velocity = in_full_precision(self.network(z, self.time_scale * times, labels))
        return {"loss": (velocity - (noise - images)).square().mean()}
