"""StyleGAN 1 (Karras et al. 2019, arXiv:1812.04958): styles by AdaIN, trained by progressive growing."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from torch import Tensor

from gesso.common.ranges import Count, NonNegative, Share
from gesso.common.schedules import Schedule
from lightning_modules.core.abilities import Batch
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.networks.stylegan1.discriminator import DiscriminatorOptions, GrowingDiscriminator
from lightning_modules.networks.stylegan1.growing import GrowingOptions, at_detail, first_detail, level_of_detail
from lightning_modules.networks.stylegan1.synthesis import Generator, SynthesisOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions


class StyleGAN1(StyleGAN2):
    """StyleGAN 1: instance norm and styles, R1 in every step, and images that grow (arXiv:1710.10196).

    The level of detail is a function of the images seen alone. Real images have no more detail than generated ones.

    Args:
        resolution: height and width of the images in pixels, a power of two from 8 on.
        mapping: options of the mapping network.
        synthesis: options of the synthesis network.
        discriminator: options of the discriminator.
        growing: from which resolution, and how long each of them takes.
        r1_gamma, r1_interval: of R1, which is part of the discriminator's loss.
        path_length_weight: as in StyleGAN2; the authors have none.
        generator_optimizer, discriminator_optimizer: options of each optimizer; the authors' learning rate is 0.001 up
            to 64 px, and goes to 0.003 at 512 px. They also forget Adam's moments whenever a resolution comes in.
        options: those of ``StyleGAN2``.
    """

    penalties_apart = False
    generator_kind = Generator
    discriminator_kind = GrowingDiscriminator
    generator: Generator
    discriminator: GrowingDiscriminator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        mapping: MappingOptions = MappingOptions(),
        synthesis: SynthesisOptions = SynthesisOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(),
        growing: GrowingOptions = GrowingOptions(),
        r1_gamma: NonNegative | Schedule = 10.0,
        r1_interval: Count = 1,
        path_length_weight: NonNegative = 0.0,
        style_mixing: Share = 0.9,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3, beta1=0.0, beta2=0.99),
        **options: Any,
    ) -> None:
        super().__init__(
            resolution=resolution,
            mapping=mapping,
            synthesis=synthesis,  # type: ignore[arg-type] # of another synthesis network, for the generator alone
            discriminator=discriminator,  # type: ignore[arg-type] # for the discriminator alone
            r1_gamma=r1_gamma,
            r1_interval=r1_interval,
            path_length_weight=path_length_weight,
            style_mixing=style_mixing,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **options,
        )
        self.save_hyperparameters()
        self.growing, self.levels = growing, first_detail(growing, resolution)
        self._grow()

    def optimization(self) -> dict[str, OptimizerOptions]:
        """As they were given: R1 is no update of its own; a path length's is."""
        generator = self.generator_optimizer
        if self.path_length is not None:
            generator = generator.with_extra_updates(self.path_length.interval)
        return {"generator": generator, "discriminator": self.discriminator_optimizer}

    def level_of_detail(self) -> float:
        """How often the side of the images is halved in the step that comes: 0 is full resolution."""
        return level_of_detail(self.growing, self.resolution, self.images_seen)

    def mixable_layers(self) -> int:
        """See ``StyleGAN2``: the layers that the present image is made of."""
        return self.generator.synthesis.num_ws - 2 * math.floor(self.level_of_detail())

    def step_kind(self) -> Hashable | None:
        """See ``ImageFamily.step_kind``."""
        own = super().step_kind()
        return None if own is None else (own, self.level_of_detail())

    def step(self, batch: Batch) -> None:
        self._grow()
        super().step(self._with_detail(batch))

    def discriminator_losses(self, batch: Batch) -> Losses:
        return {**super().discriminator_losses(batch), "level_of_detail": self.discriminator.detail.mean()}

    def held_out_losses(self, batch: Batch) -> Losses:
        return super().held_out_losses(self._with_detail(batch))

    def _with_detail(self, batch: Batch) -> Batch:
        images: Tensor = batch["image"]
        return {**batch, "image": at_detail(images, self.discriminator.detail, self.levels)}

    def _grow(self) -> None:
        detail = self.level_of_detail()
        self.generator.synthesis.grow(detail)
        self.discriminator.grow(detail)
