"""DDPM: diffusion in discrete steps."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from gesso.common.arguments import one_of
from gesso.common.ranges import Count, Positive
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.denoisers import FOURIER, DenoiserOptions
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import VP, Path, beside, cosine_alphas_bar, ddpm_sigmas, linear_alphas_bar
from lightning_modules.samplers.stepping import Denoiser
from lightning_modules.samplers.wrappers import Prediction, discrete_denoiser

Schedule = Literal["linear", "cosine"]


class DDPM(DenoisingFamily):
    """Denoising diffusion in T discrete steps (Ho et al. 2020, arXiv:2006.11239).

    Trains on z = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) e, with t uniform in 0 to T - 1.

    Args:
        timesteps: T.
        schedule: ``linear`` betas (Ho et al. 2020) or ``cosine`` (Nichol and Dhariwal 2021, arXiv:2102.09672).
        prediction: ``epsilon``: e; ``v``: sqrt(alpha_bar) e - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022,
            arXiv:2202.00512); ``data``: x0.
        min_snr_gamma: the loss of x0 is weighted by min(SNR, gamma) (Hang et al. 2023, arXiv:2303.09556, who have 5);
            null: the predicted quantity's own squared error.
        options: those of ``DenoisingFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = (*DenoisingFamily.fixed_options, "timesteps", "schedule", "prediction")
    path: Path = VP

    def __init__(
        self,
        *,
        timesteps: Count = 1000,
        schedule: Schedule = "linear",
        prediction: Prediction = "epsilon",
        min_snr_gamma: Positive | None = None,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4),
        sampling: SamplingOptions = SamplingOptions("ddim", 50),
        **options: Any,
    ) -> None:
        one_of(schedule, "schedule", get_args(Schedule))
        one_of(prediction, "prediction", get_args(Prediction))
        # Known before the base class checks the sampling with it.
        self.timesteps = timesteps
        super().__init__(network=network, optimizer=optimizer, sampling=sampling, **options)
        self.save_hyperparameters()
        self.prediction, self.min_snr_gamma = prediction, min_snr_gamma
        # No buffers: a module's .to(dtype) would round them.
        self.table = linear_alphas_bar(timesteps) if schedule == "linear" else cosine_alphas_bar(timesteps)
        self._table = self.table.float()
        #: What the network's embedding gets of a time t.
        self.time_scale = 1 / timesteps if network.architecture in FOURIER else 1000 / timesteps

    def _checked_sampling(self, sampling: SamplingOptions) -> SamplingOptions:
        if sampling.steps > self.timesteps:
            raise ValueError(f"sampling.steps is {sampling.steps}; the model has {self.timesteps} steps, and no more")
        return super()._checked_sampling(sampling)

    def sigmas(self, steps: int) -> Tensor:
        return ddpm_sigmas(self.table, steps)

    def denoiser(self, labels: Tensor | None) -> Denoiser:
        return discrete_denoiser(
            lambda z, time: self.network(z, self.time_scale * time, labels), self.table, self.prediction
        )

    def losses(self, batch: Batch) -> Losses:
        """The squared error of what is predicted, weighted."""
        images = batch["image"]
        labels = self.partly_hidden_labels(batch)
        times = (self.rand(len(images)) * self.timesteps).long()
        return self._losses(images, labels, times, self.randn(*images.shape))

    def held_out_losses(self, batch: Batch) -> Losses:
        labels = self.labels_of(batch)
        times = (self.spread(batch) * self.timesteps).long()
        return self._losses(batch["image"], labels, times, self.held_out_noise(batch))

    def _losses(self, images: Tensor, labels: Tensor | None, times: Tensor, noise: Tensor) -> Losses:
        if self._table.device != times.device:
            self._table = self._table.to(times.device)
        alpha_bar = self._table[times]
        kept, added = beside(alpha_bar.sqrt(), images), beside((1 - alpha_bar).sqrt(), images)
        z = kept * images + added * noise
        output = in_full_precision(self.network(z, self.time_scale * times.float(), labels))
        target = {"epsilon": noise, "data": images, "v": kept * noise - added * images}[self.prediction]
        error = (output - target).square().flatten(1).mean(1)
        return {"loss": (self._weights(alpha_bar / (1 - alpha_bar)) * error).mean(), "error": error.mean()}

    def _weights(self, snr: Tensor) -> Tensor:
        if self.min_snr_gamma is None:
            return torch.ones_like(snr)
        # Of the squared error of x0; an error of e is sqrt(SNR) times one of x0, one of v is sqrt(SNR + 1) times.
        weight = snr.clamp(max=self.min_snr_gamma)
        return weight / {"epsilon": snr, "v": snr + 1, "data": torch.ones_like(snr)}[self.prediction]
