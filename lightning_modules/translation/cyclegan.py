"""CycleGAN: from one domain to another and back, learnt without pairs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative, Whole
from gesso.common.ranks import rows_of_all_ranks, rows_of_this_rank
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.deployment import Deployable, Layout
from lightning_modules.core.family import Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.translating import TranslatingFamily
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.folding import folded
from lightning_modules.networks.patch_discriminator import PatchDiscriminator, PatchDiscriminatorOptions
from lightning_modules.networks.picture_pool import PicturePool
from lightning_modules.networks.resnet_generator import ResnetGenerator, ResnetGeneratorOptions
from lightning_modules.networks.unet_generator import UnetGenerator, UnetGeneratorOptions

Architecture = Literal["resnet", "unet"]


class CycleGAN(TranslatingFamily):
    """Two generators that undo one another, and a discriminator in each domain (Zhu et al. 2017, arXiv:1703.10593).

    The generators, which step together, minimise ::

        (D_b(G_ab(a)) - 1)^2 + (D_a(G_ba(b)) - 1)^2
        + lambda_a |G_ba(G_ab(a)) - a| + lambda_b |G_ab(G_ba(b)) - b|
        + lambda_identity (lambda_a |G_ba(a) - a| + lambda_b |G_ab(b) - b|)

    and each discriminator least squares on real pictures and on those of its pool: generated in this step, before the
    generators' update, or earlier. All means are over places and pictures.

    The pools are part of the state. They take the pictures in the order of the global batch, and which of them are
    swapped is a function of seed and images seen: with another number of ranks the same pictures are shown, and a
    training goes on from its checkpoint, to the bit with the same number of ranks. Every rank keeps both pools: 2 x 50
    pictures of 3 x 256 x 256 are 79 MB.

    Args:
        resolution: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB), of both domains.
        lambda_a: weight of the cycle from A over B to A.
        lambda_b: weight of the cycle from B over A to B.
        lambda_identity: how much a generator is held to leave pictures of its own target domain as they are, relative
            to the cycles' weights: it keeps colours. 0: not at all, and a third fewer passes through the generators.
        pool_size: pictures of each pool; 0: discriminators see this step's pictures alone.
        architecture: of both generators: ``resnet`` (the paper's) or ``unet`` (pix2pix's, with skip connections).
        generator: options of both generators, of ``resnet``.
        unet: the same of ``unet``.
        discriminator: options of both discriminators.
        generator_optimizer, discriminator_optimizer: options of each network's optimizer. The authors' learning rate is
            constant for the first half of training and falls to 0 in the second: ``schedule: linear``, ``hold_kimg``.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: pictures that are too small for the discriminator, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "unet", "discriminator")

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        lambda_a: NonNegative = 10.0,
        lambda_b: NonNegative = 10.0,
        lambda_identity: NonNegative = 0.5,
        pool_size: Whole = 50,
        architecture: Architecture = "resnet",
        generator: ResnetGeneratorOptions = ResnetGeneratorOptions(),
        unet: UnetGeneratorOptions = UnetGeneratorOptions(),
        discriminator: PatchDiscriminatorOptions = PatchDiscriminatorOptions(normalization="instance"),
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(lambda_a=lambda_a, lambda_b=lambda_b, lambda_identity=lambda_identity)
        self.save_hyperparameters()
        self.lambda_a, self.lambda_b, self.lambda_identity = lambda_a, lambda_b, lambda_identity
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer

        def build() -> nn.Module:
            if architecture == "unet":
                return UnetGenerator(unet, channels=channels)
            return ResnetGenerator(generator, channels=channels)

        self.generator_ab, self.generator_ba = build(), build()
        self.discriminator_a = PatchDiscriminator(discriminator, channels=channels)
        self.discriminator_b = PatchDiscriminator(discriminator, channels=channels)
        self.discriminator_a.check_side(resolution)
        shape = (channels, resolution, resolution)
        self.pool_a, self.pool_b = PicturePool(pool_size, shape), PicturePool(pool_size, shape)
        #: What the generators made in this step, of each micro-batch: in domain A, and in B.
        self._fakes: tuple[list[Tensor], list[Tensor]] = ([], [])

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "generator_ab": self.generator_optimizer,
            "generator_ba": self.generator_optimizer,
            "discriminator_a": self.discriminator_optimizer,
            "discriminator_b": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator_ab", "generator_ba")

    # ---- training ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> None:
        self._fakes = ([], [])
        # The cycles run through both generators.
        self.update(("generator_ab", "generator_ba"), self.generator_losses, batch)
        fakes_a, fakes_b = (torch.cat(fakes) for fakes in self._fakes)
        self._fakes = ([], [])
        shown = self.shown(self.pool_a, fakes_a)
        self.update("discriminator_a", self.discriminator_a_losses, {**batch, "shown": shown})
        shown = self.shown(self.pool_b, fakes_b)
        self.update("discriminator_b", self.discriminator_b_losses, {**batch, "shown": shown})

    def shown(self, pool: PicturePool, fakes: Tensor) -> Tensor:
        """What a discriminator sees of this rank's generated pictures [N, C, H, W]: them, or earlier ones of the pool.

        A collective.
        """
        if not pool.size:
            return fakes
        of_all = rows_of_all_ranks(fakes)
        draws = self.randint(len(of_all), 2 * pool.size)
        return rows_of_this_rank(pool.exchange(of_all, draws, before=self.images_seen))

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial, cycle and identity terms of both directions; keeps the generated pictures."""
        a, b = batch["image"], batch["image_b"]
        if self.lambda_identity:
            # Pictures do not see one another in an instance norm: two passes in one.
            fake_b, same_b = self.generator_ab(torch.cat([a, b])).chunk(2)
            fake_a, same_a = self.generator_ba(torch.cat([b, a])).chunk(2)
        else:
            fake_b, fake_a = self.generator_ab(a), self.generator_ba(b)
        for kept, fake in zip(self._fakes, (fake_a, fake_b), strict=True):
            kept.append(fake.detach())
        losses = {
            # The authors' generators have no 1/2 in their least squares; their discriminators have.
            "adversarial_a": 2 * generator_loss("lsgan", self.discriminator_a(fake_a)),
            "adversarial_b": 2 * generator_loss("lsgan", self.discriminator_b(fake_b)),
            "cycle_a": F.l1_loss(self.generator_ba(fake_b), a),
            "cycle_b": F.l1_loss(self.generator_ab(fake_a), b),
        }
        loss = losses["adversarial_a"] + losses["adversarial_b"]
        loss = loss + self.lambda_a * losses["cycle_a"] + self.lambda_b * losses["cycle_b"]
        if self.lambda_identity:
            losses |= {"identity_a": F.l1_loss(same_a, a), "identity_b": F.l1_loss(same_b, b)}
            identity = self.lambda_a * losses["identity_a"] + self.lambda_b * losses["identity_b"]
            loss = loss + self.lambda_identity * identity
        return {"loss": loss, **losses}

    def discriminator_a_losses(self, batch: Batch) -> Losses:
        """Least squares on pictures of domain A, and on those that ``shown`` has of them."""
        return _discriminator_losses(self.discriminator_a(batch["image"]), self.discriminator_a(batch["shown"]))

    def discriminator_b_losses(self, batch: Batch) -> Losses:
        """The same in domain B."""
        return _discriminator_losses(self.discriminator_b(batch["image_b"]), self.discriminator_b(batch["shown"]))

    def held_out_losses(self, batch: Batch) -> Losses:
        a, b = batch["image"], batch["image_b"]
        return {
            "cycle_a": F.l1_loss(self.generator_ba(self.generator_ab(a)), a),
            "cycle_b": F.l1_loss(self.generator_ab(self.generator_ba(b)), b),
        }

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def translate(self, images: Tensor, direction: str) -> Tensor:
        translated: Tensor = self._generator(direction)(images)
        return translated

    def _generator(self, direction: str) -> nn.Module:
        return self.generator_ab if direction == "a-to-b" else self.generator_ba

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: the generator of a direction."""
        generator = folded(self._generator(self.known_part(part)))
        return self.deployable_translation(generator, part, layout, multiple=getattr(generator, "multiple", 1))

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Held-out images above their translations, and the cycles: image, translation, and what comes back."""
        return {**super().previews(held_out, seed=seed), "cycles": self.cycles(held_out)}

    def cycles(self, held_out: Batch) -> Preview:
        """Grid of three rows for each domain: up to eight images, their translations, and the way back."""
        a, b = held_out["image"], held_out["image_b"]
        columns = min(8, len(a), len(b))
        rows: list[Tensor] = []
        for images, there, back in ((a, "a-to-b", "b-to-a"), (b, "b-to-a", "a-to-b")):
            originals = images[:columns]
            translated = self.translate(originals, there)
            rows += [originals, translated.to(originals), self.translate(translated, back).to(originals)]
        return Preview(torch.cat(rows), columns=columns)


def _discriminator_losses(real_logits: Tensor, fake_logits: Tensor) -> Losses:
    loss = discriminator_loss("lsgan", real_logits, fake_logits)
    return {"loss": loss, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
