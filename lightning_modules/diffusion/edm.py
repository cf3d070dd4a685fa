"""EDM: diffusion with preconditioned networks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gesso.common.ranges import Positive, Share
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.augment.non_leaky import LABELS, NonLeakyAugmentation
from lightning_modules.networks.denoisers import DenoiserOptions, magnitude_preserving
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.samplers.preconditioning import Preconditioning
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import beside, edm_sigmas
from lightning_modules.samplers.stepping import Denoiser
from lightning_modules.samplers.wrappers import edm_denoiser


class EDM(DenoisingFamily):
    """EDM (Karras et al. 2022, arXiv:2206.00364); with the network ``edm2`` EDM2 (2024, arXiv:2312.02696).

    Trains on x = x0 + sigma e, e ~ N(0, I), ln sigma ~ N(P_mean, P_std^2), by the weighted squared error of the
    denoised image: at every noise level it is 1 for a network that predicts 0.

    Args:
        P_mean, P_std: of ln sigma in training; EDM2 has -0.4 and 1.0.
        sigma_data: standard deviation of the data.
        noise_scale: factor of what the network is told of the noise, ln(sigma) / 4; the paper has 1. Of a larger one,
            such as 250, the sines of a U-Net tell noise levels apart at once, which short trainings need.
        sigma_min, sigma_max, rho: of the sampler's noise levels.
        augment: probability p of each of EDM's augmentations, of which the network is told, so that none is seen in its
            images; 0: none. For small sets; leave the data's own mirroring off.
        uncertainty: the network learns how uncertain it is at each noise level, which balances the levels' losses
            (EDM2, eq. 21); the architecture ``edm2`` alone has it.
        options: those of ``DenoisingFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = (*DenoisingFamily.fixed_options, "sigma_data", "noise_scale")

    def __init__(
        self,
        *,
        P_mean: float = -1.2,
        P_std: Positive = 1.2,
        sigma_data: Positive = 0.5,
        noise_scale: Positive = 1.0,
        sigma_min: Positive = 0.002,
        sigma_max: Positive = 80.0,
        rho: Positive = 7.0,
        augment: Share = 0.0,
        uncertainty: bool = False,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3),
        sampling: SamplingOptions = SamplingOptions("heun", 18),
        **options: Any,
    ) -> None:
        super().__init__(
            network=network,
            optimizer=optimizer,
            sampling=sampling,
            augment_dim=LABELS if augment else 0,
            uncertainty=uncertainty,
            **options,
        )
        if not sigma_min < sigma_max:
            raise ValueError(f"sigma_min is {sigma_min}; it must be less than sigma_max ({sigma_max})")
        self.save_hyperparameters()
        self.P_mean, self.P_std, self.uncertainty = P_mean, P_std, uncertainty
        self.levels = (sigma_min, sigma_max, rho)
        self.precondition = Preconditioning(sigma_data, noise_scale)
        self.augmentation = NonLeakyAugmentation(augment) if augment else None

    def shape(self) -> dict[str, object]:
        c = self.precondition
        told = {"sigma_data": c.sigma_data, "noise_scale": c.noise_scale, "augment": self.augmentation is not None}
        return {**super().shape(), **told}

    def sigmas(self, steps: int) -> Tensor:
        return edm_sigmas(steps, *self.levels)

    def denoiser(self, labels: Tensor | None) -> Denoiser:
        return edm_denoiser(lambda x, noise: self.network(x, noise, labels), self.precondition)

    def step(self, batch: Batch) -> None:
        super().step(batch)
        if (network := magnitude_preserving(self.network)) is not None:
            # After the optimizer's step, not in forward: recomputation, sharding and compilers want forward pure.
            with self.edited("network"), torch.no_grad():
                network.normalize_weights_()

    def losses(self, batch: Batch) -> Losses:
        """The weighted squared error of the denoised images; with ``uncertainty``, as a Gaussian's likelihood."""
        images = batch["image"]
        labels = self.partly_hidden_labels(batch)
        sigma = (self.P_mean + self.P_std * self.randn(len(images))).exp()
        noise = self.randn(*images.shape)
        if self.augmentation is None:
            return self._losses(images, labels, sigma, noise)
        images, done = self.augmentation(images, self)
        return self._losses(images, labels, sigma, noise, done)

    def held_out_losses(self, batch: Batch) -> Losses:
        images = batch["image"]
        labels = self.labels_of(batch)
        sigma = (self.P_mean + self.P_std * torch.special.ndtri(self.spread(batch))).exp()
        return self._losses(images, labels, sigma, self.held_out_noise(batch))

    def _losses(
        self, images: Tensor, labels: Tensor | None, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Losses:
        x = images + beside(sigma, images) * noise
        denoised, c_noise = self._denoised(x, sigma, labels, augment=augment)
        error = beside(self.precondition.weight(sigma), images) * (denoised - images) ** 2
        loss = error.flatten(1).mean(1)
        if not self.uncertainty:
            return {"loss": loss.mean()}
        network = magnitude_preserving(self.network)
        assert network is not None
        log_variance = network.logvar(c_noise)
        return {"loss": (loss / log_variance.exp() + log_variance).mean(), "error": loss.mean()}

    def _denoised(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        network: nn.Module | None = None,
        augment: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The denoised images, and what the network was told of their noise levels."""
        c, c_noise = self.precondition, self.precondition.c_noise(sigma)
        told = beside(c.c_in(sigma), x) * x, c_noise, labels, augment
        output = in_full_precision((network or self.network)(*told))
        return beside(c.c_skip(sigma), x) * x + beside(c.c_out(sigma), x) * output, c_noise
