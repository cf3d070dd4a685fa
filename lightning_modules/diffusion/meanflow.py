"""MeanFlow: a model of few steps that is trained from nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gesso.common.ranges import NonNegative, Positive, Share
from lightning_modules.core.dropout import DropoutMasks
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.unet.layers import position_embedding
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import FLOW, Path, beside, flow_sigmas, flow_times
from lightning_modules.samplers.stepping import Callback, Denoiser, Noise, Step
from lightning_modules.samplers.wrappers import flow_denoiser

#: Length of the vector that tells the network how long a step is.
LENGTHS = 64


class MeanFlow(DenoisingFamily):
    """MeanFlow (Geng et al. 2025, arXiv:2505.13447), with the improvements of Geng et al. 2025 (arXiv:2512.02012).

    The network gives the average velocity u(z, r, t) on the straight path from time t down to r, so that one step goes
    all the way: z_r = z_t - (t - r) u. It satisfies u = v - (t - r) du/dt, where v = u(z, t, t) is the velocity and
    d/dt runs along it; training makes the two sides equal, the derivative being a constant.

    Args:
        time_mean, time_std: of logit t and logit r in training; r is the lower one.
        share_of_lengths: share of the images with r < t; the others have r = t, and train the velocity.
        improved: the derivative runs along the network's own velocity instead of that of the image and its noise.
        adaptive_power: p of the weight 1 / (|error|^2 + c)^p of each image; 0: plain squared error.
        adaptive_constant: c of it.
        options: those of ``DenoisingFamily`` and ``ImageFamily``.
    """

    path: Path = FLOW
    own_samplers = ("flow-map",)

    def __init__(
        self,
        *,
        time_mean: float = -0.4,
        time_std: Positive = 1.0,
        share_of_lengths: Share = 0.5,
        improved: bool = True,
        adaptive_power: NonNegative = 1.0,
        adaptive_constant: Positive = 1e-3,
        network: DenoiserOptions = DenoiserOptions(dropout=0.0),
        optimizer: OptimizerOptions = OptimizerOptions(lr=6e-4, beta2=0.95),
        sampling: SamplingOptions = SamplingOptions("flow-map", 1),
        **options: Any,
    ) -> None:
        if network.architecture in ("dit", "edm2"):
            raise ValueError(f"a MeanFlow tells its network two times, which {network.architecture} does not take: "
                             "choose ddpmpp, ncsnpp or adm")  # fmt: skip
        super().__init__(network=network, optimizer=optimizer, sampling=sampling, augment_dim=LENGTHS, **options)
        self.save_hyperparameters()
        self.time_mean, self.time_std, self.share_of_lengths = time_mean, time_std, share_of_lengths
        self.improved = improved
        self.adaptive_power, self.adaptive_constant = adaptive_power, adaptive_constant
        self.time_scale = network.time_scale

    def sigmas(self, steps: int) -> Tensor:
        return flow_sigmas(steps)

    def average_velocity(self, z: Tensor, r: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """u(z, r, t) for z [N, C, H, W] and times r <= t [N], in [0, 1]."""
        lengths = position_embedding(1000 * (t - r), LENGTHS, endpoint=True)
        made: Tensor = self.network(z, self.time_scale * t, labels, lengths)
        return made

    def denoiser(self, labels: Tensor | None) -> Denoiser:
        """That of the velocity u(z, t, t): a MeanFlow is a flow as well."""
        return flow_denoiser(lambda z, t: self.average_velocity(z, t, t, labels))

    def sample(self, latents: Tensor, noise: Noise, labels: Tensor | None, callback: Callback | None = None) -> Tensor:
        if self.sampling.sampler != "flow-map":
            return super().sample(latents, noise, labels, callback)
        z, times = latents, flow_times(self.sampling.steps).tolist()
        for index, (t, r) in enumerate(pairwise(times)):
            velocity = self.average_velocity(z, z.new_full((len(z),), r), z.new_full((len(z),), t), labels)
            if callback is not None:
                ahead = z - t * velocity
                callback(Step(index, t / (1 - t) if t < 1 else float("inf"), z, ahead))
            z = z - (t - r) * velocity
        return self.to_images(z)

    def _checked_sampling(self, sampling: SamplingOptions) -> SamplingOptions:
        if sampling.sampler == "flow-map" and sampling.guidance != 1:
            raise ValueError(
                f"guidance is {sampling.guidance:g}; the sampler flow-map takes none: choose euler or heun"
            )
        return super()._checked_sampling(sampling)

    def step_kind(self) -> None:
        """See ``ImageFamily.step_kind``: forward derivatives have not been seen to be captured."""
        return

    def losses(self, batch: Batch) -> Losses:
        """The squared error of the two sides of MeanFlow's identity."""
        images = batch["image"]
        count = len(images)
        labels = self.partly_hidden_labels(batch)
        times = (self.time_mean + self.time_std * self.randn(count, 2)).sigmoid()
        t, r = times.amax(1), times.amin(1)
        r = torch.where(self.rand(count) < self.share_of_lengths, r, t)
        return self._losses(images, labels, r, t, self.randn(*images.shape))

    def held_out_losses(self, batch: Batch) -> Losses:
        labels = self.labels_of(batch)
        t = (self.time_mean + self.time_std * torch.special.ndtri(self.spread(batch))).sigmoid()
        return self._losses(batch["image"], labels, t, t, self.held_out_noise(batch))

    def _losses(self, images: Tensor, labels: Tensor | None, r: Tensor, t: Tensor, noise: Tensor) -> Losses:
        # In bf16-true, images come in bf16.
        images = in_full_precision(images)
        z, velocity = images.lerp(noise, beside(t, images)), noise - images
        masks = DropoutMasks(images.device)
        # Two passes: a derivative without a gradient, then an ordinary forward, as every strategy knows it.
        derivative = self.derivative(z, r, t, velocity, labels)
        masks.again()
        u = in_full_precision(self.average_velocity(z, r, t, labels))
        error = (u - (velocity - beside(t - r, z) * derivative)).square().flatten(1).mean(1)
        weight = (error.detach() + self.adaptive_constant) ** -self.adaptive_power
        return {"loss": (weight * error).mean(), "error": error.mean()}

    def derivative(self, z: Tensor, r: Tensor, t: Tensor, velocity: Tensor, labels: Tensor | None) -> Tensor:
        """d/dt u(z, r, t) along the velocity, [N, C, H, W]: a product of the Jacobian, in fp32, without a gradient."""
        kind = z.device.type
        # Neither fused attention nor the hooks with which ZeRO 3 gathers weights have a forward derivative: so for this
        # pass all weights are whole.
        with torch.no_grad(), torch.autocast(kind, enabled=False), sdpa_kernel(SDPBackend.MATH), self.whole_weights():
            z, velocity = z.float(), velocity.float()
            if self.improved:
                velocity = self.average_velocity(z, t, t, labels).float()
            if isinstance(z, FakeTensor):
                # `gesso plan` follows shapes alone, for which torch has no forward derivative of SiLU: it costs as much
                # as two passes.
                self.average_velocity(z, r, t, labels)
                return self.average_velocity(z, r, t, labels).float()
            found: Tensor = torch.func.jvp(
                lambda z, r, t: self.average_velocity(z, r, t, labels).float(),
                (z, r, t),
                (velocity, torch.zeros_like(r), torch.ones_like(t)),
            )[1]
        return found
