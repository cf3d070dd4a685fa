"""The autoencoder of latent diffusion."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.randomness import mix_seed
from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.deployment import Deployable, Layout, Named, Port
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.reconstructing import ReconstructingFamily
from lightning_modules.losses.adaptive import balanced_loss
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.losses.variational import gaussian_kl
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.autoencoder_kl import KLAutoencoder, KLAutoencoderOptions
from lightning_modules.networks.checksum import weights_checksum
from lightning_modules.networks.folding import folded
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.networks.patch_discriminator import PatchDiscriminator, PatchDiscriminatorOptions


class AutoencoderKL(ReconstructingFamily):
    """Images to small maps of latents and back (Rombach et al. 2021, "latent diffusion", arXiv:2112.10752).

    Minimises L1 + perceptual_weight * LPIPS + kl_weight * KL / D + w * adversarial loss, where L1 is a mean over an
    image's D numbers, KL a sum over its latents (so ``kl_weight`` is as in the authors' code, whose losses are sums),
    and w the adversarial weight. A discriminator of patches, trained in turn with a hinge loss, joins in later.

    Args:
        resolution: height and width of the images in pixels, a multiple of 4 (f4) or 8 (f8).
        channels: 1 (grey) or 3 (RGB).
        latent_channels: numbers at each place of the latents.
        kl_weight: of the KL divergence to N(0, I): just so much that latents keep a scale.
        perceptual_weight: of LPIPS with VGG16.
        adversarial_weight: of the adversarial loss; 0: no discriminator.
        adaptive_weight: multiply it by the ratio of the reconstruction's and the adversarial loss's gradients in the
            last layer (VQGAN), of each rank's micro-batch by itself.
        discriminator_start_kimg: thousands of images after which the discriminator begins.
        autoencoder: options of encoder and decoder.
        discriminator: options of the discriminator.
        autoencoder_optimizer, discriminator_optimizer: options of each optimizer; the authors' learning rate is 4.5e-6
            for each image of a global batch.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: a resolution that cannot be halved so often, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("autoencoder", "discriminator")

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        latent_channels: Count = 4,
        kl_weight: NonNegative = 1e-6,
        perceptual_weight: NonNegative = 1.0,
        adversarial_weight: NonNegative = 0.5,
        adaptive_weight: bool = True,
        discriminator_start_kimg: NonNegative = 600.0,
        autoencoder: KLAutoencoderOptions = KLAutoencoderOptions(),
        discriminator: PatchDiscriminatorOptions = PatchDiscriminatorOptions(),
        autoencoder_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.5, beta2=0.9),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.5, beta2=0.9),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(kl_weight=kl_weight, perceptual_weight=perceptual_weight, adversarial_weight=adversarial_weight)
        if resolution % autoencoder.factor:
            raise ValueError(
                f"resolution {resolution} is no multiple of {autoencoder.factor}: "
                f"autoencoder.multipliers halve it {len(autoencoder.multipliers) - 1} times"
            )
        self.save_hyperparameters()
        self.resolution, self.channels, self.latent_channels = resolution, channels, latent_channels
        self.kl_weight, self.perceptual_weight = kl_weight, perceptual_weight
        self.adversarial_weight, self.adaptive_weight = adversarial_weight, adaptive_weight
        self.start_kimg = discriminator_start_kimg
        self._optimizers = {"autoencoder": autoencoder_optimizer, "discriminator": discriminator_optimizer}
        self.autoencoder = KLAutoencoder(autoencoder, channels=channels, latent_channels=latent_channels)
        if adversarial_weight:
            self.discriminator = PatchDiscriminator(discriminator, channels=channels)
        self._lpips: Frozen[LPIPS] | None = None

    def optimization(self) -> dict[str, OptimizerOptions]:
        return self._optimizers if self.adversarial_weight else {"autoencoder": self._optimizers["autoencoder"]}

    def generating_networks(self) -> tuple[str, ...]:
        return ("autoencoder",)

    def published_weights(self) -> tuple[str, ...]:
        return ("vgg16_lpips",) if self.perceptual_weight else ()

    def take_weights(self, name: str, file: Path) -> None:
        self._lpips = Frozen(LPIPS(file)).to(self.device)

    # ---- training ---------------------------------------------------------------------------------------------------

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator has begun."""
        return self.adversarial_weight > 0 and self.images_seen >= 1000 * self.start_kimg

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return self.adversarial

    def step(self, batch: Batch) -> None:
        self.update("autoencoder", self.autoencoder_losses, batch)
        if self.adversarial:
            self.update("discriminator", self.discriminator_losses, batch)

    def autoencoder_losses(self, batch: Batch) -> Losses:
        """All terms for a draw of latents; the adversarial one when the discriminator has begun."""
        images = batch["image"]
        decoded, features, mean, log_variance = self.autoencoder(images, self._noise(images))
        losses = self._reconstruction(images, decoded, mean, log_variance)
        if not self.adversarial:
            return losses
        adversarial = generator_loss("hinge", self.discriminator(decoded))
        if self.adaptive_weight:
            loss, weight = balanced_loss(
                losses["fidelity"],
                adversarial,
                self.adversarial_weight,
                decoded,
                features,
                self.autoencoder.decoder.to_image,
            )
            loss = loss + losses["kl_weighted"]
        else:
            weight = decoded.new_full((), self.adversarial_weight)
            loss = losses["loss"] + weight * adversarial
        return {**losses, "loss": loss, "adversarial": adversarial, "adversarial_weight": weight}

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Hinge loss on images and on what the autoencoder makes of them now."""
        images = batch["image"]
        with torch.no_grad():
            decoded, *_ = self.autoencoder(images, self._noise(images))
        real, fake = self.discriminator(images), self.discriminator(decoded)
        loss = discriminator_loss("hinge", real, fake)
        return {"loss": loss, "real_logits": real.mean(), "fake_logits": fake.mean()}

    def held_out_losses(self, batch: Batch) -> Losses:
        # The posterior's mean, not a draw: validation losses are deterministic.
        images = batch["image"]
        decoded, _, mean, log_variance = self.autoencoder(images, torch.zeros_like(self._places(images)))
        return self._reconstruction(images, decoded, mean, log_variance)

    def _reconstruction(self, images: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
        l1 = (decoded - images).abs().mean()
        kl = gaussian_kl(mean.flatten(1), log_variance.flatten(1)).mean()
        kl_weighted = self.kl_weight * kl / images[0].numel()
        found = {"l1": l1, "kl": kl, "kl_weighted": kl_weighted}
        fidelity = l1
        if self.perceptual_weight:
            if self._lpips is None:
                raise RuntimeError("AutoencoderKL has no LPIPS network: pass the file of vgg16_lpips to take_weights")
            # Grey pictures as RGB.
            both = (pictures.expand(-1, 3, -1, -1) for pictures in (decoded, images))
            found["lpips"] = self._lpips.network(*both).mean()
            fidelity = fidelity + self.perceptual_weight * found["lpips"]
        return {"loss": fidelity + kl_weighted, **found, "fidelity": fidelity}

    def _noise(self, images: Tensor) -> Tensor:
        return self.randn(len(images), *self._places(images).shape[1:])

    def _places(self, images: Tensor) -> Tensor:
        factor = self.autoencoder.factor
        height, width = (side // factor for side in images.shape[2:])
        return images.new_empty(len(images), self.latent_channels, height, width)

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.autoencoder.encoder(images)
        return mean, log_variance

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decoder(latents).float().clamp(-1, 1)

    def deployable_parts(self) -> tuple[str, ...]:
        return ("decoder", "encoder", "reconstruction")

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: latents to pictures, pictures to the means of their latents, or both."""
        self.known_part(part)
        alone, factor = folded(self.autoencoder), self.autoencoder.factor
        # A tracer cannot tell that H / factor * factor is H: pictures that are encoded have one size.
        sizes = layout if part == "decoder" else replace(layout, dynamic=False)
        sides = sizes.sides(self.resolution, factor)
        if any(side % factor for side in sides):
            raise ValueError(f"--size: sides are multiples of {factor}, the autoencoder's")
        pictures = torch.zeros(layout.count, self.channels, *sides)
        free = {0: "batch", 2: "height", 3: "width"} if part == "decoder" else {0: "batch"}
        source = Port(pictures, "pictures, float32 [N, C, H, W] in [-1, 1]", free, "image", factor)
        about = f"latents, float32 [N, {self.latent_channels}, H / {factor}, W / {factor}]"
        places = Port(self._places(pictures).zero_(), about, free)
        if part == "decoder":
            return Deployable(
                Named(lambda latents: alone.decoder(latents).clamp(-1, 1), network=alone.decoder),
                {"latents": places},
                "picture",
                source.about,
                lambda index, seed, _: {"latents": self._drawn(index, seed, layout)},
                lambda inputs: self.decode_latents(inputs["latents"]),
            )
        if part == "encoder":
            return Deployable(
                Named(lambda source: alone.encoder(source)[0], network=alone.encoder),
                {"source": source},
                "mean",
                f"means of the {places.about}",
                lambda index, seed, given: dict(given),
                lambda inputs: self.encode(inputs["source"])[0],
                is_picture=False,
            )
        return Deployable(
            Named(lambda source: alone.decoder(alone.encoder(source)[0]).clamp(-1, 1), network=alone),
            {"source": source},
            "picture",
            source.about,
            lambda index, seed, given: dict(given),
            lambda inputs: self.reconstruct(inputs["source"]),
        )

    def _drawn(self, index: Tensor, seed: int, layout: Layout) -> Tensor:
        """Latents N(0, I) to try the decoder with, of another size each time where sizes are free."""
        first = int(index[0])
        height, width = (
            side // self.autoencoder.factor for side in layout.sides(self.resolution, self.autoencoder.factor)
        )
        if layout.dynamic:
            height, width = height + 3 * (first % 3 == 2), width + 3 * (first % 3 == 1)
        generator = torch.Generator().manual_seed(mix_seed(seed, first))
        return torch.randn(len(index), self.latent_channels, height, width, generator=generator)

    def encoder_checksum(self) -> str:
        return weights_checksum(self.autoencoder.encoder)
