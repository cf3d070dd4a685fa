"""Families that make images by taking noise away: diffusion models and flows."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gesso.common.arguments import one_of
from gesso.common.ranges import Count, Share, Whole
from lightning_modules.core.abilities import Batch, CannotDo, Preview
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import changes, plain
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.latents import PictureOrLatentFamily
from lightning_modules.networks.denoisers import DenoiserOptions, build_denoiser
from lightning_modules.networks.folding import folded
from lightning_modules.samplers.editing import inpaint, sdedit, slerp
from lightning_modules.samplers.guidance import classifier_free
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.schedules import VE, Path
from lightning_modules.samplers.stepping import Callback, Denoiser, Noise, Step
from lightning_modules.samplers.stochastic import counted_noise
from lightning_modules.samplers.table import SAMPLERS, Sampler, find_sampler

#: Columns of the preview that shows pictures come out of noise.
STRIP = 8


class DenoisingFamily(PictureOrLatentFamily):
    """A family with one network, out of which each kind of diffusion model makes a denoiser.

    Args:
        resolution: height and width of the images in pixels, or of the latents.
        channels: 1 (grey) or 3 (RGB), or those of the latents.
        num_classes: 0: unconditional.
        label_dropout: share of the labels that training hides, so that the model is unconditional as well: what
            classifier-free guidance needs.
        network: options of the network.
        optimizer: options of its optimizer.
        sampling: how samples are made; may be changed afterwards.
        options: those of ``PictureOrLatentFamily`` (latents in place of pictures) and ``ImageFamily``.

    Raises:
        ValueError: guidance without classes, or without a share of hidden labels.
    """

    #: In whose time and velocity a trapezoid steps.
    path: Path = VE
    #: Samplers that this family runs itself, with an evaluation a step.
    own_samplers: tuple[str, ...] = ()
    #: The families whose networks mean the same as this one's.
    taught_by: tuple[type[DenoisingFamily], ...] = ()
    fixed_options: ClassVar[tuple[str, ...]] = ("network",)
    network: nn.Module

    def __init__(  # type: ignore[explicit-any] # options as ImageFamily declares them
        self,
        *,
        resolution: Count = 32,
        channels: Count = 3,
        num_classes: Whole = 0,
        label_dropout: Share = 0.1,
        network: DenoiserOptions = DenoiserOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3),
        sampling: SamplingOptions = SamplingOptions(),
        augment_dim: int = 0,
        uncertainty: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.resolution, self.channels, self.num_classes = resolution, channels, num_classes
        self.label_dropout = label_dropout if num_classes else 0.0
        self.network_options, self.optimizer = network, optimizer
        self.sampling = self._checked_sampling(sampling)
        self.network = build_denoiser(
            network,
            resolution=resolution,
            in_channels=channels,
            out_channels=channels,
            num_classes=num_classes,
            augment_dim=augment_dim,
            uncertainty=uncertainty,
        )

    # ---- what a kind of diffusion model answers ----------------------------------------------------------------------

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The training loss of a batch, a mean over all pixels."""

    @abstractmethod
    def denoiser(self, labels: Tensor | None) -> Denoiser:
        """The denoiser D(x, sigma) for labels int64 [N], of which ``num_classes`` hides one; None: no classes."""

    @abstractmethod
    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of a sampling, float64 [steps + 1], falling to 0."""

    # ---- training ----------------------------------------------------------------------------------------------------

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"network": self.optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("network", lambda part: self.losses(self.drawn(part)), batch)

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The batch's labels; None: the family is unconditional."""
        return batch["label"] if self.num_classes else None

    def partly_hidden_labels(self, batch: Batch) -> Tensor | None:
        """The batch's labels for training, a share ``label_dropout`` of them hidden; None: see ``labels_of``."""
        labels = self.labels_of(batch)
        if labels is None or not self.label_dropout:
            return labels
        return torch.where(self.rand(len(labels)) < self.label_dropout, self.num_classes, labels)

    def begin_with(self, module: ImageFamily) -> None:
        """Takes the weights of another diffusion model's network.

        Raises:
            ValueError: it has another network.
        """
        if not isinstance(module, DenoisingFamily):
            raise ValueError(f"{module.described()} cannot be a teacher; a diffusion model can")
        if not isinstance(module, self.taught_by):
            raise ValueError(
                f"{module.described()} cannot be a teacher of {self.described()}: it predicts another quantity"
            )
        theirs, ours = module.network.state_dict(), self.network.state_dict()
        alike = {name: t.shape for name, t in theirs.items()} == {name: t.shape for name, t in ours.items()}
        if (different := changes(module.shape(), self.shape())) or not alike:
            said = f" ({', '.join(different)})" if different else ""
            raise ValueError(f"it has another network{said}: give these options the values of its config.yaml")
        self.network.load_state_dict(theirs)

    def shape(self) -> dict[str, object]:
        """The options that decide what the network's weights mean, as plain data."""
        network = plain(self.network_options)
        assert isinstance(network, dict)
        return {
            "resolution": self.resolution,
            "channels": self.channels,
            "num_classes": self.num_classes,
            "network": {
                key: value for key, value in network.items() if key not in ("dropout", "gradient_checkpointing")
            },
        }

    def spread(self, batch: Batch) -> Tensor:
        """A number in (0, 1) for each held-out image, for its noise level: the same every time, evenly spread."""
        places: Tensor = batch["index"].double() * 0.6180339887498949 + 0.5
        return (places % 1).clamp(1e-3, 1 - 1e-3).float()

    def held_out_noise(self, batch: Batch) -> Tensor:
        """Noise for held-out images, the same every time, of their shape."""
        return counted_noise(0, batch["image"], batch["index"])(0)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def sample_with(self, changes: Mapping[str, object]) -> dict[str, object]:
        """See ``Abilities.sample_with``."""
        if any(name.startswith("truncation") for name in changes):
            raise CannotDo(f"{self.described()} takes a sampler, steps and guidance, no truncation")
        known = [field.name for field in fields(SamplingOptions)]
        for name in changes:
            one_of(name, "option of sampling", known)
        before = {name: getattr(self.sampling, name) for name in changes}
        chosen = self._checked_sampling(replace(self.sampling, **changes))  # type: ignore[arg-type]
        if chosen.guidance == 1 and any(changes.get(name) for name in ("guidance_from", "guidance_to")):
            raise ValueError("an interval of guidance does nothing without guidance, which is 1: ask for more")
        self.sampling = chosen
        return before

    def _checked_sampling(self, sampling: SamplingOptions) -> SamplingOptions:
        if sampling.sampler not in (*SAMPLERS, *self.own_samplers):
            raise ValueError(
                f"sampler is {sampling.sampler}, which {self.described()} does not have; choose one of "
                f"{', '.join(SAMPLERS)}"
            )
        if sampling.guidance != 1 and not self.num_classes:
            raise ValueError(f"guidance is {sampling.guidance:g}; it must be 1, since the model has no classes")
        if sampling.guidance != 1 and not self.label_dropout:
            raise ValueError(
                f"guidance is {sampling.guidance:g}; it must be 1, since the model was trained with label_dropout 0: "
                "it knows no unconditional images"
            )
        return sampling

    def sampled(self) -> dict[str, object]:
        """See ``Abilities.sampled``."""
        chosen = self.sampling
        own = chosen.sampler in self.own_samplers
        evaluations = chosen.steps if own else self.sampler.evaluations(self.sigmas(chosen.steps))
        facts: dict[str, object] = {"sampler": chosen.sampler, "steps": chosen.steps, "evaluations": evaluations}
        if chosen.guidance != 1:
            facts["guidance"] = chosen.guidance
        if chosen.guidance != 1 and (chosen.guidance_from or chosen.guidance_to is not None):
            facts |= {"guidance_from": chosen.guidance_from, "guidance_to": chosen.guidance_to}
        return facts

    @property
    def sampler(self) -> Sampler:
        """The sampler of ``sampling``."""
        return find_sampler(self.sampling.sampler)

    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """See ``Abilities.generate``. Without ``labels``, a conditional family cycles through its classes."""
        noise = self.noise(index, seed=seed)
        return self.sample(noise(0), noise, self._classes(index, labels))

    def sample(self, latents: Tensor, noise: Noise, labels: Tensor | None, callback: Callback | None = None) -> Tensor:
        """Images NCHW in [-1, 1] out of standard normal latents.

        Args:
            latents: [N, channels, resolution, resolution].
            noise: what stochastic samplers add on their way.
            labels: int64 [N]; None: no classes.
            callback: is told of each step.
        """
        made = self.sampler(
            self.guided(labels),
            latents,
            self.sigmas(self.sampling.steps),
            noise=noise,
            path=self.path,
            callback=callback,
        )
        return self.to_images(made)

    def guided(self, labels: Tensor | None) -> Denoiser:
        """The denoiser with the guidance of ``sampling``."""
        chosen = self.sampling
        strong = self.denoiser(labels)
        if chosen.guidance == 1 or labels is None:
            return strong
        return classifier_free(
            strong,
            self.denoiser(torch.full_like(labels, self.num_classes)),
            chosen.guidance,
            sigma_low=chosen.guidance_from,
            sigma_high=chosen.guidance_until,
        )

    def noise(self, index: Tensor, *, seed: int) -> Noise:
        """The noise of samples number ``index`` of the sequence ``seed``."""
        like = torch.empty(len(index), self.channels, self.resolution, self.resolution, device=self.device)
        return counted_noise(seed, like, index)

    def interpolate(self, *, pairs: int, steps: int, seed: int) -> Preview:
        """``pairs`` rows, each of ``steps`` images on the great circle between two noises of one class."""
        ends = self.noise(torch.arange(2 * pairs), seed=seed)(0)
        arc = slerp(ends[0::2], ends[1::2], torch.linspace(0, 1, steps, device=self.device)).flatten(0, 1)
        # One noise on the way for all of a row, so that its ends alone make the difference.
        rows = torch.arange(pairs).repeat_interleave(steps)
        return Preview(self.sample(arc, self.noise(rows, seed=seed), self._classes(rows, None)), columns=steps)

    def edit(
        self,
        pictures: Tensor,
        index: Tensor,
        *,
        seed: int,
        strength: float = 0.5,
        known: Tensor | None = None,
        labels: Tensor | None = None,
        resamples: int = 1,
    ) -> Tensor:
        """See ``Abilities.edit``: SDEdit, or with ``known`` in-painting."""
        pictures = pictures.to(self.device)
        start = self.from_images(pictures)
        noise, classes = self.noise(index, seed=seed), self._classes(index, labels)
        denoiser, sigmas = self.guided(classes), self.sigmas(self.sampling.steps)
        if known is not None:
            known = known.to(self.device)
            kept = inpaint(denoiser, start, self.places(known), sigmas, noise=noise, resamples=resamples)
            # The known pixels come back bit for bit.
            return torch.where(known, pictures, self.to_images(kept).to(pictures.dtype))
        solver = self._solver(noise)
        return self.to_images(sdedit(denoiser, start, strength, sigmas, noise=noise, solver=solver))

    def _solver(self, noise: Noise) -> Callable[[Denoiser, Tensor, Tensor], Tensor]:
        def solve(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
            # A sampler multiplies standard normal latents by the first level.
            return self.sampler(denoiser, x / float(sigmas[0]), sigmas, noise=noise, path=self.path)

        return solve

    def _classes(self, index: Tensor, labels: Tensor | None) -> Tensor | None:
        if not self.num_classes:
            return None
        return (index % self.num_classes if labels is None else labels).to(self.device)

    # ---- for use alone -----------------------------------------------------------------------------------------------

    def deployable_parts(self) -> tuple[str, ...]:
        """See ``Abilities.deployable_parts``: one evaluation."""
        return ("denoiser",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: one evaluation of D(x, sigma), of which samplers make pictures."""
        self.known_part(part)
        # The family with another network; all else is shared.
        alone = copy.copy(self)
        alone.__dict__ = {**self.__dict__, "_modules": {**self._modules, "network": folded(self.network)}}

        def denoised(noisy: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            return alone.denoiser(labels)(noisy, sigma).float()

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            # Levels of all sizes that sampling goes through, and pictures' own scale under the noise.
            levels = self.sigmas(max(self.sampling.steps, 2))[:-1].float()
            levels = levels[levels.isfinite() & (levels > 0)]
            sigma = levels[(index * 7) % len(levels)]
            noise = self.noise(index, seed=seed)
            clean = noise(1).float().cpu().clamp(-1, 1) / 2
            inputs = {"noisy": clean + sigma[:, None, None, None] * noise(0).float().cpu(), "sigma": sigma}
            labels = self._classes(index, None)
            return inputs if labels is None else {**inputs, "labels": labels.cpu()}

        def run(inputs: Inputs) -> Tensor:
            labels = inputs["labels"] if self.num_classes else None
            return self.denoiser(labels)(inputs["noisy"], inputs["sigma"])

        shape = f"float32 [N, {self.channels}, {self.resolution}, {self.resolution}]"
        about = {
            "noisy": f"x = x0 + sigma e, e ~ N(0, I), {shape}",
            "sigma": "the standard deviation of the noise, float32 [N], above 0",
            "labels": f"classes, int64 [N] in [0, {self.num_classes}], the last one for none",
        }
        index = torch.arange(layout.count)
        return Deployable(
            Named(denoised, network=alone.network),
            {name: Port(value, about[name], {0: "batch"}) for name, value in draw(index, 0, {}).items()},
            "denoised",
            f"x0 as the model sees it, {shape}",
            draw,
            run,
            is_picture=False,
        )

    # ---- previews ----------------------------------------------------------------------------------------------------

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        # A conditional family shows one class per column.
        columns = self.num_classes if 4 <= self.num_classes <= 16 else 10
        return {
            "samples": Preview(self.generate(torch.arange(6 * columns), seed=seed), columns=columns),
            "denoising": self.strip(6, seed=seed),
        }

    def strip(self, rows: int, *, seed: int) -> Preview:
        """``rows`` samples on their way: what the denoiser made of the noise, at up to 8 of the steps."""
        index = torch.arange(rows)
        noise, seen = self.noise(index, seed=seed), _Seen(self.sampling.steps)
        made = self.sample(noise(0), noise, self._classes(index, None), seen)
        shown = [*map(self.to_images, seen.denoised[: STRIP - 1]), made]
        return Preview(torch.stack(shown, dim=1).flatten(0, 1), columns=len(shown))


class _Seen:
    """Callback that keeps the denoiser's answer at up to ``STRIP`` - 1 of the steps, the first among them."""

    def __init__(self, steps: int) -> None:
        self.chosen = {round(number * steps / (STRIP - 1)) for number in range(STRIP - 1)}
        self.denoised: list[Tensor] = []

    def __call__(self, step: Step) -> None:
        if step.index in self.chosen:
            self.denoised.append(step.denoised)
