"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): a generator without aliasing, T and R."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from gesso.common.ranges import Count, NonNegative, Positive, Share
from gesso.common.ranks import mean_over_ranks
from lightning_modules.core.abilities import Batch
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.blur import gaussian_blur
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.networks.stylegan2.generator import NoiseInput
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan3.schedule import SynthesisOptions
from lightning_modules.networks.stylegan3.synthesis import Generator


class StyleGAN3(StyleGAN2):
    """StyleGAN3: StyleGAN2's discriminator, and a generator whose features move and, in R, turn with the image.

    Args:
        resolution: height and width of the images in pixels, a power of two from 16 on.
        mapping: options of the mapping network.
        synthesis: options of the synthesis network; ``rotation_equivariant`` chooses R.
        discriminator: options of the discriminator.
        style_mixing, path_length_weight: as in StyleGAN2; the authors use neither.
        blur_sigma: standard deviation in pixels of a blur of all images that the discriminator sees in the beginning,
            which R needs: the authors have 10; 0: none.
        blur_kimg: thousands of images over which it fades away.
        generator_optimizer, discriminator_optimizer: options of each optimizer, before ``StyleGAN2``'s correction.
        options: those of ``StyleGAN2``.
    """

    generator_kind = Generator
    generator: Generator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        mapping: MappingOptions = MappingOptions(layers=2, w_avg_beta=0.998),
        synthesis: SynthesisOptions = SynthesisOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(),
        style_mixing: Share = 0.0,
        path_length_weight: NonNegative = 0.0,
        blur_sigma: NonNegative = 0.0,
        blur_kimg: Positive = 200.0,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2.5e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99),
        **options: Any,
    ) -> None:
        super().__init__(
            resolution=resolution,
            mapping=mapping,
            synthesis=synthesis,  # type: ignore[arg-type] # of another synthesis network, for the generator alone
            discriminator=discriminator,
            style_mixing=style_mixing,
            path_length_weight=path_length_weight,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **options,
        )
        check_weights(blur_sigma=blur_sigma)
        self.save_hyperparameters()
        self.blur_sigma, self.blur_kimg = blur_sigma, blur_kimg
        #: Mean squares of the layers' inputs of this step, by update: one for each micro-batch.
        self._magnitudes: dict[int, list[Tensor]] = {}

    def synthesis_noise(self, count: int) -> NoiseInput:
        """None: details stick to what they belong to, not to pixels."""
        return "none"

    def rendered(self, ws: Tensor) -> Tensor:
        images, magnitudes = self.generator.synthesis.measured(ws)
        self._magnitudes.setdefault(self._now.updates, []).append(magnitudes)
        return images

    def step_kind(self) -> Hashable | None:
        """See ``ImageFamily.step_kind``."""
        own = super().step_kind()
        return None if own is None else (own, self.present_blur())

    def step(self, batch: Batch) -> None:
        super().step(batch)
        # As the authors, by the images of the discriminator's update alone, which is the last that makes any.
        last = torch.stack(self._magnitudes[max(self._magnitudes)]).mean(0)
        self._magnitudes = {}
        self.generator.synthesis.follow(mean_over_ranks(last), len(batch["image"]) * self.trainer.world_size)

    def _follow_w(self) -> None:
        last = max(self._means_of_w)
        self._means_of_w = {last: self._means_of_w[last]}
        super()._follow_w()

    def transformed(self, index: Tensor, transforms: Tensor, *, seed: int) -> Tensor:
        """See ``Abilities.transformed``."""
        space = self.w_space()
        ws = space.layers(space.sampled(index, seed=seed))
        images: Tensor = self.generator.synthesis(ws, transform=transforms.to(ws.device))
        return images.float()

    def shown(self, images: Tensor) -> Tensor:
        """What the discriminator sees in training: blurred images in the beginning, then augmented."""
        return super().shown(gaussian_blur(images, self.present_blur()))

    def present_blur(self) -> float:
        """Standard deviation of the blur in the step that comes, in pixels."""
        return self.blur_sigma * max(0.0, 1 - self.images_seen / (1000 * self.blur_kimg))
