"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), in the form of StyleGAN2-ADA (arXiv:2006.06676)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gesso.common.randomness import mix_seed
from gesso.common.ranges import Count, NonNegative, Share, Whole
from gesso.common.ranks import mean_over_ranks
from gesso.common.schedules import Schedule
from lightning_modules.core.abilities import Batch
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.adversarial import AdversarialFamily
from lightning_modules.kinds.w_space import GeneratorSpace
from lightning_modules.losses.regularizers import PathLength
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.stylegan2.discriminator import Discriminator, DiscriminatorOptions, StyleDiscriminator
from lightning_modules.networks.stylegan2.generator import NoiseInput, StyleGenerator
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import Generator, SynthesisOptions


class StyleGAN2(AdversarialFamily):
    """StyleGAN2, with the augmentation of its successor as an option (``augmentation``).

    R1 and the path length are updates of their own, every ``r1_interval`` and ``path_length_interval`` steps; learning
    rates and betas of Adam are corrected for them.

    Args:
        resolution: height and width of the images in pixels, a power of two from 8 on.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        num_classes: 0: unconditional; else the label is an input of both networks' mapping.
        mapping: options of the mapping network.
        synthesis: options of the synthesis network.
        discriminator: options of the discriminator.
        style_mixing: share of updates whose images have the w of two latents, one before and one behind a random layer.
        r1_gamma: weight of R1; the authors' rule for a start is 0.0002 resolution^2 / batch.
        r1_interval: steps from one R1 to the next.
        path_length_weight: weight of the path length regulariser; 0: none.
        path_length_interval: steps from one to the next; it sees half of the batch.
        truncation_psi: of generated pictures: 1: none, 0: all are the mean; training does not depend on it.
        truncation_cutoff: number of layers that are truncated; None: all.
        generator_optimizer, discriminator_optimizer: options of each optimizer, before the correction.
        options: those of ``AdversarialFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("mapping", "synthesis", "discriminator")
    penalties_apart = True
    #: Networks of these options.
    generator_kind: ClassVar[type[StyleGenerator]] = Generator
    discriminator_kind: ClassVar[type[StyleDiscriminator]] = Discriminator
    generator: StyleGenerator
    discriminator: StyleDiscriminator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        latent_dim: Count = 512,
        num_classes: Whole = 0,
        mapping: MappingOptions = MappingOptions(),
        synthesis: SynthesisOptions = SynthesisOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(),
        style_mixing: Share = 0.9,
        r1_gamma: NonNegative | Schedule = 10.0,
        r1_interval: Count = 16,
        path_length_weight: NonNegative = 2.0,
        path_length_interval: Count = 4,
        truncation_psi: Share = 1.0,
        truncation_cutoff: Count | None = None,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99),
        **options: Any,
    ) -> None:
        super().__init__(r1_gamma=r1_gamma, r1_interval=r1_interval, **options)
        check_weights(path_length_weight=path_length_weight)
        self.save_hyperparameters()
        self.resolution, self.channels = resolution, channels
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.style_mixing, self.group = style_mixing, discriminator.minibatch_group
        self.truncation_psi, self.truncation_cutoff = truncation_psi, truncation_cutoff
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        sizes = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        self.generator = self.generator_kind(mapping, synthesis, latent_dim=latent_dim, **sizes)
        self.discriminator = self.discriminator_kind(discriminator, **sizes)
        self.path_length = PathLength(path_length_weight, path_length_interval) if path_length_weight else None
        #: Means of w of this step, by update: one for each micro-batch.
        self._means_of_w: dict[int, list[Tensor]] = {}

    def optimization(self) -> dict[str, OptimizerOptions]:
        generator, discriminator = self.generator_optimizer, self.discriminator_optimizer
        if self.path_length is not None:
            generator = generator.with_extra_updates(self.path_length.interval)
        # Penalties of one interval are one update.
        for interval in {regularizer.interval for regularizer in self.regularizers}:
            discriminator = discriminator.with_extra_updates(interval)
        return {"generator": generator, "discriminator": discriminator}

    def requires_double_backward(self) -> tuple[str, ...]:
        return (*(("generator",) if self.path_length is not None else ()), *super().requires_double_backward())

    def decoded(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self._truncated(generator, latents, labels, self.truncation_psi)

    def _truncated(self, generator: nn.Module, latents: Tensor, labels: Tensor | None, psi: float | Tensor) -> Tensor:
        images: Tensor = generator(latents, labels, truncation_psi=psi, truncation_cutoff=self.truncation_cutoff)
        return images.float().clamp(-1, 1)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: latents (and labels, and the truncation) to images."""
        made = super().deployable(part, layout)
        if not layout.truncation:
            return made
        alone = made.network.get_submodule("network")

        def picture(latents: Tensor, *others: Tensor) -> Tensor:
            return self._truncated(alone, latents, others[0] if self.num_classes else None, others[-1])

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            return {**made.draw(index, seed, pictures), "truncation": torch.tensor([1 - 0.3 * (int(index[0]) % 3)])}

        def run(inputs: Inputs) -> Tensor:
            psi = float(inputs["truncation"])
            return self._truncated(self.generator, inputs["latents"], inputs.get("labels"), psi)

        psi = Port(torch.tensor([float(self.truncation_psi)]), "from 0 (the mean) to 1 (no truncation), float32 [1]")
        return replace(
            made,
            network=Named(picture, network=alone),
            inputs={**made.inputs, "truncation": psi},
            draw=draw,
            run=run,
        )

    def w_space(self) -> GeneratorSpace:
        """See ``Abilities.w_space``; with the truncation of now."""
        return GeneratorSpace(
            self.generator,
            self.conditions,
            truncation_psi=self.truncation_psi,
            truncation_cutoff=self.truncation_cutoff,
        )

    def on_path(self, index: Tensor, times: Tensor, *, seed: int, space: Literal["z", "w"]) -> Tensor:
        """See ``Abilities.on_path``; each path has noise of its own."""
        mapping = self.generator.mapping
        if space == "w":
            start, end = (mapping(*of_one).double() for of_one in self.path_ends(index, seed=seed))
            w = start.lerp(end, times[:, None].to(start)).to(mapping.w_avg.dtype)
        else:
            w = mapping(*self.path_latents(index, times, seed=seed))
        space_w = self.w_space()
        numbers = sum(side**2 for side in space_w.noise_sides)
        noise = [torch.randn(numbers, generator=_generator(mix_seed(seed, 1, number))) for number in index.tolist()]
        return space_w.images(space_w.layers(w), torch.stack(noise).to(self.device) if numbers else None)

    def sample_with(self, changes: Mapping[str, object]) -> dict[str, object]:
        """See ``Abilities.sample_with``: ``truncation_psi`` and ``truncation_cutoff``."""
        return self.change_sampling(changes, "truncation_psi", "truncation_cutoff")

    def sampled(self) -> dict[str, object]:
        """See ``Abilities.sampled``: the truncation, where there is any."""
        if self.truncation_psi == 1:
            return {}
        cutoff = {} if self.truncation_cutoff is None else {"truncation_cutoff": self.truncation_cutoff}
        return {"truncation_psi": self.truncation_psi, **cutoff}

    # ---- a step -----------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> None:
        self._check_groups(len(batch["image"]) // self.micro_batches)
        if self.is_generators_turn():
            self.update("generator", self.generator_losses, batch)
            if self.path_length is not None and self.path_length.due(self.steps_done):
                self.update("generator", self.path_length_losses, batch, log_loss=False)
        self.update_discriminator(batch)
        self._follow_w()

    def step_kind(self) -> Hashable | None:
        """See ``ImageFamily.step_kind``: the host draws where styles are mixed."""
        lengths = self.path_length is not None and self.path_length.due(self.steps_done)
        return None if self.style_mixing else (super().step_kind(), lengths)

    def path_length_losses(self, batch: Batch) -> Losses:
        """The path length regulariser on half of the batch, in full precision."""
        assert self.path_length is not None
        count, labels = max(1, len(batch["image"]) // 2), self.labels_of(batch)
        with torch.autocast(self.device.type, enabled=False):
            images, ws = self.synthesized(count, None if labels is None else labels[:count])
            value = self.path_length(images, ws, self)
        # Biases that it does not depend on have a gradient of 0 rather than none: their optimizer goes on.
        return {"loss": self.path_length.weight * value + 0 * images.mean(), self.path_length.name: value}

    def fakes(self, batch: Batch) -> Tensor:
        """Generated images: as many as the batch has, with the batch's labels."""
        return self.synthesized(len(batch["image"]), self.labels_of(batch))[0]

    def synthesized(self, count: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """New images, and the w of each of their layers, ``[count, num_ws, w_dim]``, with mixed styles."""
        mapping = self.generator.mapping
        w = mapping(self.randn(count, self.latent_dim), labels)
        self._means_of_w.setdefault(self._now.updates, []).append(w.detach().mean(0))
        ws = self.generator.broadcast(w)
        # Known without asking the device, and the same for all images of an update.
        chance, place = self.randint(2, 1 << 30)
        if chance < self.style_mixing * (1 << 30):
            first = 1 + place % (self.mixable_layers() - 1)
            others = self.generator.broadcast(mapping(self.randn(count, self.latent_dim), labels))
            ws = torch.cat([ws[:, :first], others[:, first:]], 1)
        return self.rendered(ws), ws

    def mixable_layers(self) -> int:
        """Number of w of an image, the first so many of which styles are mixed in."""
        count: int = self.generator.synthesis.num_ws
        return count

    def rendered(self, ws: Tensor) -> Tensor:
        """The images of w ``[N, num_ws, w_dim]`` in training."""
        images: Tensor = self.generator.synthesis(ws, self.synthesis_noise(len(ws)))
        return images

    def synthesis_noise(self, count: int) -> NoiseInput:
        """The noise inputs of ``count`` images in training."""
        return self.randn(count, self.generator.synthesis.noise_size)

    def _follow_w(self) -> None:
        """Moves ``w_avg`` once for each update that made images, by the mean over micro-batches and ranks."""
        means = [torch.stack(of_one).mean(0) for of_one in self._means_of_w.values()]
        self._means_of_w = {}
        for mean in mean_over_ranks(torch.stack(means)):
            self.generator.mapping.follow(mean)

    def _check_groups(self, count: int) -> None:
        if self.discriminator.deviation is not None and count % self.group:
            raise ValueError(
                f"a micro-batch of {count} images is no multiple of model.discriminator.minibatch_group "
                f"({self.group}): a batch of more images on each rank, fewer micro_batches, or smaller groups"
            )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
