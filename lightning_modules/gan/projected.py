"""Projected GANs (Sauer et al. 2021, arXiv:2111.01007): the discriminator looks through a frozen network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Whole
from lightning_modules.core.abilities import Batch
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.adversarial import AdversarialFamily
from lightning_modules.losses.adversarial import AdversarialLoss
from lightning_modules.metrics import specs
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator
from lightning_modules.metrics.features import IMAGENET_MEAN, IMAGENET_STD
from lightning_modules.metrics.mobilenet import MobileNetV2
from lightning_modules.networks.augment.differentiable import DiffAugmentOptions
from lightning_modules.networks.fastgan import FastGANGenerator, FastGANOptions
from lightning_modules.networks.projected import FeaturePyramid, ProjectedDiscriminator

#: The frozen network, an asset; and its layers and channels at reductions of 4, 8, 16 and 32.
NETWORK = "mobilenet_v2"
ENDS, CHANNELS = (4, 7, 14, 18), (24, 32, 96, 320)
#: The authors' for FastGAN's generator.
OPTIMIZER = OptimizerOptions(lr=2e-4, beta1=0.0, beta2=0.99)


class ProjectedGAN(AdversarialFamily):
    """A GAN whose discriminator sees features of MobileNetV2, mixed at random, instead of pixels.

    It learns in far fewer images. Figures of MobileNetV2 itself are refused as a judge: they would say how well its
    own features are met. (The authors' network is an EfficientNet of similar size, trained for the same task.)

    Args:
        resolution: height and width of the images in pixels, a power of two from 16 to 1024.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        num_classes: 0: unconditional; else conditional batch norm, and an embedding in the small discriminators.
        generator: options of FastGAN's generator.
        feature_size: side in pixels to which images are resized for the frozen network, a multiple of 32 from 64 on;
            the authors have 224, where images are smaller.
        mixed_width: channels of the largest mixed feature map; smaller ones have up to 8 times as many.
        mixing_seed: of the random weights that mix.
        loss: ``hinge``, unless another one is to be compared with it.
        diff_augment: changes of all images that the discriminator sees; by default the authors'.
        generator_optimizer, discriminator_optimizer: options of each optimizer.
        options: those of ``AdversarialFamily`` and ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "feature_size")
    generator: FastGANGenerator
    discriminator: ProjectedDiscriminator

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        latent_dim: Count = 256,
        num_classes: Whole = 0,
        generator: FastGANOptions = FastGANOptions(),
        feature_size: Count = 224,
        mixed_width: Count = 64,
        mixing_seed: Whole = 0,
        loss: AdversarialLoss = "hinge",
        diff_augment: DiffAugmentOptions = DiffAugmentOptions(color=True, translation=0.125, cutout=0.2),
        generator_optimizer: OptimizerOptions = OPTIMIZER,
        discriminator_optimizer: OptimizerOptions = OPTIMIZER,
        **options: Any,
    ) -> None:
        super().__init__(loss=loss, diff_augment=diff_augment, **options)
        if self.regularizers:
            raise ValueError(
                f"{self.regularizers[0].name}: a ProjectedGAN has no penalties, its discriminator's features are "
                "frozen; set it to 0"
            )
        self.save_hyperparameters()
        self.resolution, self.channels = resolution, channels
        self.latent_dim, self.num_classes, self.feature_size = latent_dim, num_classes, feature_size
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.generator = FastGANGenerator(
            generator, latent_dim=latent_dim, resolution=resolution, channels=channels, num_classes=num_classes
        )
        self.discriminator = ProjectedDiscriminator(
            CHANNELS, size=feature_size, width=mixed_width, num_classes=num_classes, seed=mixing_seed
        )
        self._features: Frozen[FeaturePyramid] | None = None

    def published_weights(self) -> tuple[str, ...]:
        return (NETWORK,)

    def take_weights(self, name: str, file: Path) -> None:
        layers = list(MobileNetV2(file).features)
        self._features = Frozen(FeaturePyramid(layers, ENDS, mean=IMAGENET_MEAN, std=IMAGENET_STD)).to(self.device)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """See ``GenerativeFamily.evaluator``.

        Raises:
            ValueError: the frozen network of the discriminator would be the judge.
        """
        found = super().evaluator(options)
        judged = [name for name in found.names if name.endswith(f"/{NETWORK}")] if found is not None else []
        if judged:
            others = " or ".join(name for name in specs.EXTRACTORS if name != NETWORK)
            raise ValueError(
                f"{', '.join(judged)}: a ProjectedGAN's discriminator looks through {NETWORK}, which is no judge of "
                f"it; choose another extractor, {others}"
            )
        return found

    def decoded(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        return super().decoded(generator, latents, labels).clamp(-1, 1)

    def fakes(self, batch: Batch) -> Tensor:
        count, size = len(batch["image"]), self.generator.noise_size
        latents = self.randn(count, self.latent_dim)
        return self.generator(latents, self.labels_of(batch), self.randn(count, size) if size else None)

    def held_out_losses(self, batch: Batch) -> Losses:
        return {"real_logits": self.discriminator(self.seen(batch["image"]), self.labels_of(batch)).mean()}

    def seen(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the frozen network: of images [N, C, H, W] in [-1, 1], resized."""
        if self._features is None:
            raise RuntimeError(f"the weights of {NETWORK} are not loaded")
        size = (self.feature_size, self.feature_size)
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        maps = self._features(images)
        assert isinstance(maps, list)
        return maps

    def _critic(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        def logits(images: Tensor) -> Tensor:
            found: Tensor = self.discriminator(self.seen(self.shown(images)), labels)
            return found

        return logits
