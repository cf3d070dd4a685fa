"""Progressive distillation: half as many steps with each stage."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, Positive
from lightning_modules.core.averages import Average
from lightning_modules.core.family import Batch, ImageFamily, Losses, in_mode
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.profiles import HalfLife
from lightning_modules.core.saved import Checkpoint
from lightning_modules.diffusion.edm import EDM
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import beside, edm_sigmas

#: Name of the average out of which a stage's teacher is made.
STUDENT = "student"


class ProgressiveDistillation(EDM):
    """Progressive distillation (Salimans and Ho 2022, arXiv:2202.00512) of a trained EDM.

    In each stage the student learns to do in one step of DDIM what its teacher does in two, on every other noise level;
    then it is the teacher of the next stage.

    Args:
        teacher: the run of an ``EDM`` with the same network, whose averaged weights student and first teacher begin
            with; null: none, for a training that is resumed.
        teacher_steps: of the first teacher, a power of two.
        stage_kimg: length of a stage in thousands of images. Stages follow until one step is left, or training ends.
        half_life_kimg: half-life of the average of the student that becomes the next teacher.
        options: those of ``EDM``, ``DenoisingFamily`` and ``ImageFamily``; ``augment`` must be set if the teacher's
            is, as it is part of the network, but nothing is augmented.
    """

    taught_by = (EDM,)
    # The student knows the noise levels of the first teacher's steps alone.
    fixed_options: ClassVar[tuple[str, ...]] = (*EDM.fixed_options, "teacher_steps", "sigma_min", "sigma_max", "rho")
    needed_runs: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(
        self,
        *,
        teacher: str | None = None,
        teacher_steps: Count = 64,
        stage_kimg: Positive = 1000.0,
        half_life_kimg: Positive = 10.0,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4),
        sampling: SamplingOptions = SamplingOptions("ddim", 4),
        **options: Any,
    ) -> None:
        if teacher_steps < 2 or teacher_steps & (teacher_steps - 1):
            raise ValueError(f"teacher_steps is {teacher_steps}; it must be a power of two, such as 64")
        # Known before the base class checks the sampling with it.
        self.teacher_steps = teacher_steps
        super().__init__(network=network, optimizer=optimizer, sampling=sampling, **options)
        if self.uncertainty:
            raise ValueError("uncertainty is of an EDM's loss: leave it out")
        self.save_hyperparameters()
        self.teacher, self.stage_kimg, self.half_life_kimg = teacher, stage_kimg, half_life_kimg
        #: Number of the stage that the teacher is of, and the noise levels of its steps.
        self.stage = 0
        self._known: Tensor | None = None
        #: In the checkpoint, but never trained.
        self.teacher_network = copy.deepcopy(self.network).requires_grad_(False)

    def runs(self) -> dict[str, str]:
        return {"teacher": self.teacher or ""}

    def take_run(self, option: str, module: ImageFamily) -> None:
        self.begin_with(module)
        self.teacher_network.load_state_dict(self.network.state_dict())

    def own_averages(self) -> dict[str, Average]:
        return {STUDENT: Average(HalfLife(self.half_life_kimg, ramp_up=0.0), ("network",))}

    def stage_at(self, images_seen: int) -> int:
        """Number of the stage, from 0, after ``images_seen`` images."""
        last = self.teacher_steps.bit_length() - 2
        return min(int(images_seen / (1000 * self.stage_kimg)), last)

    def steps_at(self, stage: int) -> int:
        """Steps from noise to picture that the student of a stage learns."""
        return self.teacher_steps >> (stage + 1)

    def sigmas(self, steps: int) -> Tensor:
        """Every so many of the first teacher's noise levels."""
        return edm_sigmas(self.teacher_steps, *self.levels)[:: self.teacher_steps // steps]

    def _checked_sampling(self, sampling: SamplingOptions) -> SamplingOptions:
        if self.teacher_steps % sampling.steps:
            raise ValueError(
                f"sampling.steps is {sampling.steps}; it must divide the first teacher's steps ({self.teacher_steps})"
            )
        return super()._checked_sampling(sampling)

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return self.stage, self.stage_at(self.images_seen)

    def step(self, batch: Batch) -> None:
        # Not by the step before: a resumed training may have batches of another size.
        if (stage := self.stage_at(self.images_seen)) > self.stage:
            self.teacher_network.load_state_dict(self.averages.read(STUDENT, "network"))
            self.stage = stage
        super().step(batch)

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["gesso"]["stage"] = self.stage

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().on_load_checkpoint(checkpoint)
        self.stage = checkpoint["gesso"].get("stage", self.stage_at(self.images_seen - 1))

    def losses(self, batch: Batch) -> Losses:
        """The weighted squared error of what one step has to be aimed at to arrive where two of the teacher do."""
        images = batch["image"]
        labels = self.partly_hidden_labels(batch)
        places = self.rand(len(images))
        return self._distilled(images, labels, places, self.randn(*images.shape))

    def held_out_losses(self, batch: Batch) -> Losses:
        labels = self.labels_of(batch)
        return self._distilled(batch["image"], labels, self.spread(batch), self.held_out_noise(batch))

    def _distilled(self, images: Tensor, labels: Tensor | None, places: Tensor, noise: Tensor) -> Losses:
        steps = self.steps_at(self.stage)
        levels = self._levels_of(2 * steps, images.device)
        first = 2 * (places * steps).long()
        sigma, middle, last = levels[first], levels[first + 1], levels[first + 2]
        x = images + beside(sigma, images) * noise
        # The teacher drops nothing out.
        with torch.no_grad(), in_mode(self.teacher_network, False):
            half = self._moved(x, sigma, middle, labels)
            end = self._moved(half, middle, last, labels)
            # One step ends at D + (last / sigma) (x - D).
            share = beside(last / sigma, x)
            target = (end - share * x) / (1 - share)
        denoised, _ = self._denoised(x, sigma, labels)
        error = beside(self.precondition.weight(sigma), images) * (denoised - target) ** 2
        return {"loss": error.mean()}

    @torch.inference_mode(False)
    def _levels_of(self, steps: int, device: torch.device) -> Tensor:
        """The noise levels of the teacher's steps, float32 [steps + 1].

        On the device from a stage's first step on: a step that is replayed would copy them from memory of the host that
        has long been given to others.
        """
        if self._known is None or len(self._known) != steps + 1 or self._known.device != device:
            self._known = self.sigmas(steps).float().to(device)
        return self._known

    def _moved(self, x: Tensor, sigma: Tensor, target: Tensor, labels: Tensor | None) -> Tensor:
        denoised, _ = self._denoised(x, sigma, labels, self.teacher_network)
        return denoised + beside(target / sigma, x) * (x - denoised)
