"""GANformer (Hudson & Zitnick 2021, arXiv:2103.01209): a StyleGAN2 whose pixels attend to several latents."""

from __future__ import annotations

from typing import Any

import torch

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.networks.ganformer.mapping import ComponentMappingOptions
from lightning_modules.networks.ganformer.synthesis import ComponentGenerator, ComponentSynthesisOptions
from lightning_modules.pictures.regions import regions


class GANformer(StyleGAN2):
    """GANformer: k latents, each of which paints the pixels that attend to it, beside a global one.

    Losses, penalties and the discriminator are StyleGAN2's.

    Args:
        resolution: height and width of the images in pixels, a power of two from 8 on.
        latent_dim: dimensions of z, of all k + 1 latents together.
        mapping: options of the mapping network, k among them.
        synthesis: options of the synthesis network and its attention.
        path_length_weight: as in StyleGAN2; the authors have none. Path lengths are the mean of those of k + 1 latents.
        options: those of ``StyleGAN2``.
    """

    generator_kind = ComponentGenerator
    generator: ComponentGenerator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        latent_dim: Count = 544,
        mapping: ComponentMappingOptions = ComponentMappingOptions(),
        synthesis: ComponentSynthesisOptions = ComponentSynthesisOptions(),
        path_length_weight: NonNegative = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            resolution=resolution,
            latent_dim=latent_dim,
            mapping=mapping,
            synthesis=synthesis,
            path_length_weight=path_length_weight,
            **options,
        )
        self.save_hyperparameters()
        if self.path_length is not None:
            # A squared length of all latents together is k + 1 times the mean of theirs.
            self.path_length.factor /= mapping.components + 1

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """See ``Abilities.previews``; and which latent paints which pixels, see ``attention_picture``."""
        return {**super().previews(held_out, seed=seed), "attention": self.attention_picture(8, seed=seed)}

    def attention_picture(self, count: int, *, seed: int) -> Preview:
        """Samples; below each the colours of the latents that its pixels attend to; and both in one.

        Colours are mixed by the weights of the last attending layer, all of its heads together.
        """
        space, index = self.w_space(), torch.arange(count)
        ws = space.layers(space.sampled(index, seed=seed))
        images = space.images(ws).clamp(-1, 1).expand(-1, 3, -1, -1)
        painted = regions(self.generator.synthesis.attention(ws)[-1].mean(1).float(), self.resolution)
        return Preview(torch.cat([images, painted, images.lerp(painted, 0.5)]), columns=count)
