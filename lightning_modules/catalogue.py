"""The model families by name: ours, and those of installed packages.

Another package adds its own in its ``pyproject.toml``; recipes, checkpoints and the command line then know them::

    [project.entry-points."gesso.families"]
    MyGAN = "my_package.my_module:MyGAN"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gesso.common.catalogues import Catalogue

if TYPE_CHECKING:
    from lightning_modules.core.family import ImageFamily

FAMILIES = Catalogue(
    kind="family",
    group="gesso.families",
    own={
        "AdaIN": "lightning_modules.style.adain",
        "AutoencoderKL": "lightning_modules.autoencoder.kl",
        "BetaTCVAE": "lightning_modules.autoencoder.tcvae",
        "BigGAN": "lightning_modules.gan.biggan",
        "CAPVST": "lightning_modules.style.cap_vst",
        "CUT": "lightning_modules.translation.cut",
        "CycleGAN": "lightning_modules.translation.cyclegan",
        "DCGAN": "lightning_modules.gan.dcgan",
        "DDPM": "lightning_modules.diffusion.ddpm",
        "ECT": "lightning_modules.diffusion.consistency",
        "EDM": "lightning_modules.diffusion.edm",
        "FactorVAE": "lightning_modules.autoencoder.factor_vae",
        "FastStyle": "lightning_modules.style.fast_style",
        "Flow": "lightning_modules.diffusion.flow",
        "GANformer": "lightning_modules.gan.ganformer",
        "MCCNet": "lightning_modules.style.mccnet",
        "MUNIT": "lightning_modules.translation.munit",
        "MeanFlow": "lightning_modules.diffusion.meanflow",
        "ProgressiveDistillation": "lightning_modules.diffusion.progressive",
        "ProjectedGAN": "lightning_modules.gan.projected",
        "R3GAN": "lightning_modules.gan.r3gan",
        "StarGANv2": "lightning_modules.translation.stargan",
        "StyTr2": "lightning_modules.style.stytr2",
        "StyleEncoder": "lightning_modules.style.style_encoder",
        "StyleGAN1": "lightning_modules.gan.stylegan1",
        "StyleGAN2": "lightning_modules.gan.stylegan2",
        "StyleGAN3": "lightning_modules.gan.stylegan3",
        "StyleSwin": "lightning_modules.gan.styleswin",
        "SwappingAutoencoder": "lightning_modules.autoencoder.swapping",
        "VAE": "lightning_modules.autoencoder.vae",
        "WCT2": "lightning_modules.style.wct2",
    },
)


def family(name: str) -> type[ImageFamily]:
    """The class of the family ``name``, imported only now.

    Raises:
        ValueError: there is none, or two packages offer one.
        ImportError: its package cannot be imported.

    Example:
        >>> family("DCGAN").__name__
        'DCGAN'
    """
    from lightning_modules.core.family import ImageFamily

    found = FAMILIES.find(name)
    if not issubclass(found, ImageFamily):
        raise ValueError(f"family {name}: {found.__module__}.{name} is no ImageFamily")
    return found
