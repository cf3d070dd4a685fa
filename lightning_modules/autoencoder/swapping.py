"""The swapping autoencoder: the structure of one picture in the texture of another, of one set of pictures."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.abilities import Batch, CannotDo, Preview
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.random_codes import numbered_codes
from lightning_modules.kinds.reconstructing import reconstruction_evaluator
from lightning_modules.losses.adversarial import generator_loss
from lightning_modules.losses.regularizers import R1
from lightning_modules.losses.weights import check_weights
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator
from lightning_modules.networks.folding import folded
from lightning_modules.networks.padding import repeat_edges
from lightning_modules.networks.stylegan2.discriminator import Discriminator, DiscriminatorOptions
from lightning_modules.networks.swapping.autoencoder import SwappingAutoencoderNetwork, SwappingOptions
from lightning_modules.networks.swapping.cooccurrence import CooccurrenceDiscriminator, CooccurrenceOptions, crops
from lightning_modules.networks.swapping.layers import unit_vectors

#: Any picture's structure in any picture's texture: there is one domain.
DIRECTION = "a-to-a"


class SwappingAutoencoder(ImageFamily):
    """Pictures as structure, a map, and texture, a vector, which are swapped (Park et al. 2020, arXiv:2007.00653).

    The autoencoder minimises, with x' of a picture's own codes and s of its texture and its neighbour's structure, ::

        lambda_l1 |x' - x| + lambda_gan (D(x') / 2 + D(s)) + lambda_patch P(crops of s, crops of x)

    where D and P stand for the non-saturating losses of a discriminator of pictures and of one of patches, which is to
    tell whether patches come of the picture that other patches are of. Neighbours are the pictures 2i and 2i + 1 of
    those that go through the networks at a time; x' is made of half of them, as by the authors. R1 on both
    discriminators is an update of its own, every ``r1_interval`` steps; the learning rate and betas of their Adam are
    corrected for it.

    Args:
        resolution: height and width of the images in pixels, a power of two.
        channels: 1 (grey) or 3 (RGB).
        lambda_l1, lambda_gan, lambda_patch: weights of the terms.
        r1_gamma, patch_r1_gamma: weights of R1 on pictures and on patches.
        r1_interval: steps from one R1 to the next.
        patches: crops of each picture.
        smallest_patch, largest_patch: sides of what is cropped, as a share of the picture's.
        autoencoder: options of encoder and decoder.
        discriminator: options of the discriminator of pictures, StyleGAN2's.
        cooccurrence: options of the discriminator of patches.
        autoencoder_optimizer, discriminator_optimizer: options of each optimizer, before the correction.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: a resolution that cannot be halved so often, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("autoencoder", "discriminator", "cooccurrence")

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        lambda_l1: NonNegative = 1.0,
        lambda_gan: NonNegative = 1.0,
        lambda_patch: NonNegative = 1.0,
        r1_gamma: NonNegative = 10.0,
        patch_r1_gamma: NonNegative = 1.0,
        r1_interval: Count = 16,
        patches: Count = 8,
        smallest_patch: NonNegative = 0.125,
        largest_patch: NonNegative = 0.25,
        autoencoder: SwappingOptions = SwappingOptions(),
        discriminator: DiscriminatorOptions = DiscriminatorOptions(minibatch_features=0),
        cooccurrence: CooccurrenceOptions = CooccurrenceOptions(),
        autoencoder_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(lambda_l1=lambda_l1, lambda_gan=lambda_gan, lambda_patch=lambda_patch)
        check_weights(r1_gamma=r1_gamma, patch_r1_gamma=patch_r1_gamma)
        autoencoder.check_resolution(resolution)
        if not 0 < smallest_patch <= largest_patch <= 1:
            raise ValueError("smallest_patch and largest_patch are shares of the side: 0 < smallest <= largest <= 1")
        self.save_hyperparameters()
        self.lambda_l1, self.lambda_gan, self.lambda_patch = lambda_l1, lambda_gan, lambda_patch
        self.r1, self.patch_r1 = R1(r1_gamma, r1_interval), R1(patch_r1_gamma, r1_interval)
        self.resolution, self.channels, self.texture_dim = resolution, channels, autoencoder.texture_dim
        self.patches, self.scales = patches, (smallest_patch, largest_patch)
        self.patch_size = cooccurrence.patch_size
        self.multiple = 2**autoencoder.halvings
        self.smallest = self.multiple * (2 ** (autoencoder.texture_halvings + 1) - 1)
        self.autoencoder_optimizer, self.discriminator_optimizer = autoencoder_optimizer, discriminator_optimizer
        self.autoencoder = SwappingAutoencoderNetwork(autoencoder, channels=channels)
        self.discriminator = Discriminator(discriminator, resolution=resolution, channels=channels)
        self.cooccurrence = CooccurrenceDiscriminator(cooccurrence, channels=channels)

    def optimization(self) -> dict[str, OptimizerOptions]:
        judges = self.discriminator_optimizer
        if self._penalised:
            judges = judges.with_extra_updates(self.r1.interval)
        return {"autoencoder": self.autoencoder_optimizer, "discriminator": judges, "cooccurrence": judges}

    def generating_networks(self) -> tuple[str, ...]:
        return ("autoencoder",)

    def requires_double_backward(self) -> tuple[str, ...]:
        return ("discriminator", "cooccurrence") if self._penalised else ()

    @property
    def _penalised(self) -> bool:
        return bool(self.r1.factor or self.patch_r1.factor)

    # ---- training ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> None:
        if (count := len(batch["image"]) // self.micro_batches) % 2:
            raise ValueError(f"codes are swapped between two pictures: a micro-batch of {count} is not even")
        judges = ("discriminator", "cooccurrence")
        self.update(judges, self.discriminator_losses, batch)
        if self._penalised and self.r1.due(self.steps_done):
            self.update(judges, self.penalty_losses, batch, log_loss=False)
        self.update("autoencoder", self.autoencoder_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Both discriminators' losses, on pictures, on half of them made again, and on swapped ones."""
        real = batch["image"]
        with torch.no_grad():
            structure, texture = self.autoencoder.encoder(real)
            half = len(real) // 2
            again = self._decoded(structure[:half], texture[:half])
            swapped = self._decoded(neighbours(structure), texture)
        pictures = {
            "real": generator_loss("non_saturating", self.discriminator(real)),
            "again": generator_loss("non_saturating", -self.discriminator(again)) / 2,
            "swapped": generator_loss("non_saturating", -self.discriminator(swapped)) / 2,
        }
        reference = self._reference(self._crops(real))
        own, other = (self.cooccurrence.features(self._crops(images)) for images in (real, swapped))
        patches = {
            "real_patches": generator_loss("non_saturating", self.cooccurrence(reference, own)),
            "swapped_patches": generator_loss("non_saturating", -self.cooccurrence(reference, other)),
        }
        loss = self.lambda_gan * torch.stack([*pictures.values()]).sum()
        return {"loss": loss + self.lambda_patch * torch.stack([*patches.values()]).sum(), **pictures, **patches}

    def penalty_losses(self, batch: Batch) -> Losses:
        """R1 on pictures, and on patches with their references, which is halved as by the authors."""
        real = batch["image"]
        of_pictures = self.r1(self.discriminator, real, real, self)
        first, second = (self._crops(real).detach().requires_grad_() for _ in range(2))
        with torch.autocast(self.device.type, enabled=False):
            logits = self.cooccurrence(self._reference(first), self.cooccurrence.features(second))
            gradients = torch.autograd.grad(logits.sum(), (first, second), create_graph=True)
        of_patches = torch.stack([gradient.square().flatten(1).sum(1).mean() for gradient in gradients]).sum() / 2
        weighted = [
            regularizer.weight(self.images_seen) * value
            for regularizer, value in ((self.r1, of_pictures), (self.patch_r1, of_patches))
        ]
        # Biases that they do not depend on have a gradient of 0 rather than none: their optimizers go on.
        touched = 0 * (logits.mean() + self.discriminator(real).mean())
        return {
            "loss": torch.stack(weighted).sum() + touched,
            "r1": of_pictures,
            "patch_r1": torch.as_tensor(of_patches),
        }

    def autoencoder_losses(self, batch: Batch) -> Losses:
        """L1 and adversarial terms of half of the pictures made again, and those of swapped ones."""
        real = batch["image"]
        half = len(real) // 2
        structure, texture = self.autoencoder.encoder(real)
        again = self._decoded(structure[:half], texture[:half])
        swapped = self._decoded(neighbours(structure), texture)
        with torch.no_grad():
            reference = self._reference(self._crops(real))
        losses = {
            "l1": F.l1_loss(again, real[:half]),
            "again": generator_loss("non_saturating", self.discriminator(again)) / 2,
            "swapped": generator_loss("non_saturating", self.discriminator(swapped)),
            "patches": generator_loss(
                "non_saturating",
                self.cooccurrence(reference, self.cooccurrence.features(self._crops(swapped))),
            ),
        }
        adversarial = self.lambda_gan * (losses["again"] + losses["swapped"])
        return {"loss": self.lambda_l1 * losses["l1"] + adversarial + self.lambda_patch * losses["patches"], **losses}

    def held_out_losses(self, batch: Batch) -> Losses:
        return {"l1": F.l1_loss(self.reconstruct(batch["image"]), batch["image"])}

    def _decoded(self, structure: Tensor, texture: Tensor) -> Tensor:
        """Images in training, with noise."""
        decoder = self.autoencoder.decoder
        pixels = sum(height * width for height, width in decoder.noise_sizes(*structure.shape[2:]))
        return decoder(structure, texture, self.randn(len(structure), pixels))

    def _crops(self, images: Tensor) -> Tensor:
        noise = self.rand(len(images), self.patches, 5)
        return crops(images, noise, size=self.patch_size, scales=self.scales)

    def _reference(self, patches: Tensor) -> Tensor:
        """Mean features of each picture's patches, [N, 1, F]."""
        return self.cooccurrence.features(patches).mean(1, keepdim=True)

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def directions(self) -> tuple[str, ...]:
        return (DIRECTION,)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images of their own codes, in [-1, 1]."""
        return self.translate_in_style(images, DIRECTION, self.style_of(images, DIRECTION))

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """See ``Abilities.translate``: without another picture, each in its own texture."""
        return self.reconstruct(images)

    def translate_in_style(self, images: Tensor, direction: str, styles: Tensor) -> Tensor:
        """See ``Abilities.translate_in_style``: the structure of images in textures [N or 1, texture_dim]."""
        height, width = images.shape[2:]
        structure, _ = self.autoencoder.encoder(self._padded(images))
        made = self.autoencoder.decoder(structure, styles.to(self.device).expand(len(images), -1))
        return made[:, :, :height, :width].float().clamp(-1, 1)

    def style_of(self, images: Tensor, direction: str) -> Tensor:
        """See ``Abilities.style_of``: the textures."""
        _, texture = self.autoencoder.encoder(self._padded(images.to(self.device)))
        return texture

    def draw_styles(self, count: int, *, seed: int, direction: str | None = None) -> NoReturn:
        """Raises ``CannotDo``: textures are those of pictures."""
        raise CannotDo(f"{self.described()} draws no textures: --style PICTURE gives one")

    def deployable_parts(self) -> tuple[str, ...]:
        return (DIRECTION,)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: pictures and textures to pictures."""
        self.known_part(part)
        height, width = layout.sides(self.resolution, self.multiple)
        if height % self.multiple or width % self.multiple or min(height, width) < self.smallest:
            raise ValueError(
                f"--size {height}x{width}: sides are multiples of {self.multiple}, and {self.smallest} or more, in an "
                f"exported {type(self).__name__}"
            )
        alone = folded(self.autoencoder)
        images = torch.zeros(layout.count, self.channels, height, width)
        textures = torch.zeros(layout.count, self.texture_dim)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            drawn = numbered_codes(index.tolist(), self.texture_dim, seed=seed)
            return {**pictures, "style_code": unit_vectors(drawn)}

        def swapped(source: Tensor, style: Tensor) -> Tensor:
            return alone.decoder(alone.encoder(source)[0], style).clamp(-1, 1)

        about = f"pictures, float32 [N, C, H, W] in [-1, 1]; H and W are multiples of {self.multiple}"
        axes = {0: "batch", 2: "height", 3: "width"}
        return Deployable(
            Named(swapped, network=alone),
            {
                "source": Port(images, about, axes, "image", self.multiple),
                "style_code": Port(textures, f"textures of length 1, float32 [N, {self.texture_dim}]", {0: "batch"}),
            },
            "picture",
            "their structures in these textures, float32 [N, C, H, W] in [-1, 1]",
            draw,
            lambda inputs: self.translate_in_style(inputs["source"], part, inputs["style_code"]),
        )

    def _padded(self, images: Tensor) -> Tensor:
        """Images with repeated borders, at whole multiples of what the encoder halves and large enough for it."""
        return repeat_edges(images, self.multiple, least=self.smallest)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        images = held_out["image"][:8]
        again = self.reconstruct(images).to(images)
        return {"reconstruction": Preview(torch.cat([images, again]), len(images)), "samples": self.sheet(held_out)}

    def sheet(self, held_out: Batch) -> Preview:
        """Up to six held-out images: each row has one's structure, each column the texture of the one above it."""
        images = held_out["image"][:6]
        textures = self.style_of(images, DIRECTION)
        rows = [torch.ones_like(images[:1]), images]
        for image in images:
            repeated = image.expand(len(images), -1, -1, -1)
            rows += [image[None], self.translate_in_style(repeated, DIRECTION, textures).to(images)]
        return Preview(torch.cat(rows), columns=len(images) + 1)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares held-out images with what is made of their own codes."""
        return reconstruction_evaluator(self.reconstruct, options, self.described())


def neighbours(codes: Tensor) -> Tensor:
    """Codes [N, ...] with rows 2i and 2i + 1 swapped."""
    return codes.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
