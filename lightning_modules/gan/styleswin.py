"""StyleSwin (Zhang et al. 2022, arXiv:2112.10762): a StyleGAN whose generator is made of windows of attention."""

from __future__ import annotations

from typing import Any

from gesso.common.ranges import Count, NonNegative, Share
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.networks.stylegan2.generator import NoiseInput
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.styleswin.discriminator import WaveletDiscriminator, WaveletOptions
from lightning_modules.networks.styleswin.generator import SwinGenerator, SwinOptions


class StyleSwin(StyleGAN2):
    """StyleSwin: StyleGAN2's mapping network and losses, a transformer, and a discriminator that sees wavelets.

    Its optimizers are not corrected for the updates of R1, and its styles not mixed, as in the authors' code.

    Args:
        resolution: height and width of the images in pixels, a power of two from 16 on.
        mapping: options of the mapping network.
        synthesis: options of the transformer.
        discriminator: options of the discriminator.
        style_mixing, path_length_weight: as in StyleGAN2; the authors use neither.
        generator_optimizer, discriminator_optimizer: options of each optimizer; the authors' discriminator learns four
            times as fast.
        options: those of ``StyleGAN2``; ``bcr_real_weight`` and ``bcr_fake_weight`` are 10 in the authors' runs at
            256 px.
    """

    generator_kind = SwinGenerator
    discriminator_kind = WaveletDiscriminator
    generator: SwinGenerator
    discriminator: WaveletDiscriminator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        mapping: MappingOptions = MappingOptions(),
        synthesis: SwinOptions = SwinOptions(),
        discriminator: WaveletOptions = WaveletOptions(),
        style_mixing: Share = 0.0,
        path_length_weight: NonNegative = 0.0,
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=5e-5, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.0, beta2=0.99),
        **options: Any,
    ) -> None:
        super().__init__(
            resolution=resolution,
            mapping=mapping,
            synthesis=synthesis,  # type: ignore[arg-type] # of another synthesis network, for the generator alone
            discriminator=discriminator,  # type: ignore[arg-type] # for the discriminator alone
            style_mixing=style_mixing,
            path_length_weight=path_length_weight,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **options,
        )
        self.save_hyperparameters()

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def synthesis_noise(self, count: int) -> NoiseInput:
        """None: the transformer takes no noise."""
        return "none"
