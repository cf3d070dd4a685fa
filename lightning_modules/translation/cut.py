"""CUT and FastCUT: from one domain to another by one generator, whose pictures keep what each place showed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, NonNegative, Positive
from gesso.common.ranks import rows_of_all_ranks
from lightning_modules.core.abilities import Batch
from lightning_modules.core.deployment import Deployable, Layout
from lightning_modules.core.family import Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.learned_style import LearnedStyleFamily
from lightning_modules.kinds.translating import TranslatingFamily
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.losses.contrastive import patch_nce
from lightning_modules.losses.style_learned import domain_cross_entropy, style_distance
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.folding import folded
from lightning_modules.networks.initialization import init_xavier_
from lightning_modules.networks.patch_discriminator import PatchDiscriminator, PatchDiscriminatorOptions
from lightning_modules.networks.patch_projection import PatchProjection
from lightning_modules.networks.resnet_generator import PICTURE, ResnetGenerator, ResnetGeneratorOptions


class CUT(LearnedStyleFamily, TranslatingFamily):
    """One generator from A to B, a discriminator in B, and patches that find themselves (Park et al. 2020).

    arXiv:2007.15651. The generator and the projection, which step together, minimise ::

        (D(G(a)) - 1)^2 + lambda_nce (NCE(G(a), a) + NCE(G(b), b)) / 2

    and the discriminator least squares on b and G(a). NCE compares places of two pictures by maps of the generator's
    own first half, which the projection brings into one space: see ``losses.contrastive.patch_nce``. It is a mean over
    the maps: of the pixels, the two downsampling convolutions, the first residual block and the fifth (or the last, if
    there are fewer). In the paper's words the weights of its two terms are lambda_nce / 2 each.

    FastCUT: ``lambda_nce`` 10, ``nce_identity`` false, ``flip_equivariance`` true; about half the work of CUT.

    Losses by a style encoder's codes can be added (RGB alone): ``style_distance_weight`` is of the mean distance to the
    batch's pictures of domain B, ``style_classifier_weight`` of the cross-entropy of a classifier between the batch's
    pictures of both domains (``losses.style_learned.domain_cross_entropy``), of all ranks.

    Every picture has its own places and its own flip, the same for any number of ranks and micro-batches. (The authors'
    code has the same places for all pictures of a batch.) The discriminator is updated after the generator, as in
    CycleGAN, and not before it, which would take the generator one more pass; it sees what the generator made before
    its update, as in the authors' code.

    Args:
        resolution: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB), of both domains.
        lambda_nce: weight of the contrastive loss.
        nce_identity: whether pictures of domain B are to stay as they are, by the same loss: it keeps colours.
        flip_equivariance: mirror half of the pictures before the generator, and their maps after it.
        patches: places S of each map that are compared with one another; all, where a map has fewer.
        temperature: of the contrastive loss.
        projection_width: of the projection's MLPs.
        generator: options of the generator.
        discriminator: options of the discriminator.
        generator_optimizer: options of the optimizers of generator and projection.
        discriminator_optimizer: options of the discriminator's optimizer. The authors' learning rate is constant for
            the first half of training and falls to 0 in the second: ``schedule: linear``, ``hold_kimg``.
        options: those of ``LearnedStyleFamily`` and ``ImageFamily``.

    Raises:
        ValueError: pictures that are too small for the discriminator, a weight below 0, or codes of grey pictures.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("generator", "discriminator", *LearnedStyleFamily.learned_networks)

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        lambda_nce: NonNegative = 1.0,
        nce_identity: bool = True,
        flip_equivariance: bool = False,
        patches: Count = 256,
        temperature: Positive = 0.07,
        projection_width: Count = 256,
        generator: ResnetGeneratorOptions = ResnetGeneratorOptions(antialias=True),
        discriminator: PatchDiscriminatorOptions = PatchDiscriminatorOptions(normalization="instance", antialias=True),
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(lambda_nce=lambda_nce)
        if self.has_codes and channels != 3:
            raise ValueError(f"channels is {channels}: style encoders see RGB alone, so style_..._weight must be 0")
        self.save_hyperparameters()
        self.lambda_nce, self.nce_identity, self.flip_equivariance = lambda_nce, nce_identity, flip_equivariance
        self.patches, self.temperature = patches, temperature
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.generator = ResnetGenerator(generator, channels=channels)
        self.discriminator = PatchDiscriminator(discriminator, channels=channels)
        self.discriminator.check_side(resolution)
        compared = compared_maps(generator, channels)
        #: Names of the generator's maps that the contrastive loss compares.
        self.maps = tuple(compared)
        self.projection = PatchProjection(list(compared.values()), projection_width)
        for network in (self.generator, self.discriminator):
            init_xavier_(network)
        self.build_judges(resolution)
        #: What the generator made in this step, of each micro-batch.
        self._fakes: list[Tensor] = []

    def directions(self) -> tuple[str, ...]:
        return ("a-to-b",)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "generator": self.generator_optimizer,
            "projection": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator",)

    def published_weights(self) -> tuple[str, ...]:
        return super().published_weights() if self.has_codes else ()

    # ---- training ---------------------------------------------------------------------------------------------------

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self._fakes = []
        self.update(("generator", "projection"), self.generator_losses, batch)
        fakes, self._fakes = torch.cat(self._fakes), []
        self.update("discriminator", self.discriminator_losses, {**batch, "fake": fakes})

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial and contrastive terms; keeps the generated pictures."""
        count = len(batch["image"])
        # Pictures do not see one another in an instance norm: several passes in one.
        sources = torch.cat([batch["image"], batch["image_b"]]) if self.nce_identity else batch["image"]
        flips = self.flips(count, len(sources) // count)
        if flips is None:
            *keys, made = self.generator(sources, (*self.maps, PICTURE))
        else:
            made = self.generator(_mirrored(sources, flips))
        self._fakes.append(made[:count].detach())
        # The authors' generator has no 1/2 in its least squares; their discriminator has.
        losses = {"adversarial": 2 * generator_loss("lsgan", self.discriminator(made[:count]))}
        queries = self.generator(made, self.maps)
        if flips is not None:
            queries = [_mirrored(x, flips) for x in queries]
            # After the passes with gradients: autocast would keep weights for them that have none.
            with torch.no_grad():
                keys = self.generator(sources, self.maps)
        contrastive = self.contrast(queries, keys, count)
        losses["nce"] = contrastive[0]
        if self.nce_identity:
            losses["nce_identity"] = contrastive[1]
        loss = losses["adversarial"] + self.lambda_nce * contrastive.mean()
        if self.has_codes:
            terms = self.style_terms(made[:count], batch)
            losses |= terms
            loss = loss + torch.stack([self.code_weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, **losses}

    def style_terms(self, made: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of translations [N, C, H, W] by codes, whose weights are not 0."""
        codes = self.codes_of(made)
        terms: dict[str, Tensor] = {}
        with torch.no_grad():
            b = rows_of_all_ranks(self.codes_of(batch["image_b"]))
            a = rows_of_all_ranks(self.codes_of(batch["image"])) if self.code_weights["style_classifier"] else b
        if self.code_weights["style_distance"]:
            terms["style_distance"] = style_distance(codes[:, None], b).mean()
        if self.code_weights["style_classifier"]:
            terms["style_classifier"] = domain_cross_entropy(codes, b, a, temperature=self.style_temperature)
        return terms

    def contrast(self, queries: list[Tensor], keys: list[Tensor], count: int) -> Tensor:
        """The contrastive loss, a mean over the maps, of each ``count`` pictures by themselves: [pictures / count].

        Args:
            queries: maps of the pictures that were made, [pictures, C, h, w] each.
            keys: maps of those that they were made of.
            count: pictures of a batch; their places are drawn together.
        """
        places = self.places(queries, count)
        ours = self.projection(queries, places)
        with torch.no_grad():
            theirs = self.projection([x.detach() for x in keys], places)
        values = [
            torch.stack([patch_nce(*pair, temperature=self.temperature) for pair in zip(*batches, strict=True)])
            for batches in ((q.split(count), k.split(count)) for q, k in zip(ours, theirs, strict=True))
        ]
        return torch.stack(values).mean(0)

    def places(self, maps: list[Tensor], count: int) -> list[Tensor]:
        """Places of each map to compare, int64 [pictures, S], different ones of each picture; none comes twice."""
        drawn = []
        for x in maps:
            area, batches = x.shape[2] * x.shape[3], len(x) // count
            numbers = self.rand(count, batches, area).transpose(0, 1).flatten(0, 1)
            drawn.append(numbers.topk(min(self.patches, area), dim=1).indices)
        return drawn

    def flips(self, count: int, batches: int) -> Tensor | None:
        """Whether each of ``batches`` times ``count`` pictures is mirrored, bool; None: none is."""
        return (self.rand(count) < 0.5).repeat(batches) if self.flip_equivariance else None

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Least squares on pictures of domain B, and on the generated ones, ``fake``."""
        real_logits, fake_logits = self.discriminator(batch["image_b"]), self.discriminator(batch["fake"])
        loss = discriminator_loss("lsgan", real_logits, fake_logits)
        return {"loss": loss, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def translate(self, images: Tensor, direction: str) -> Tensor:
        translated: Tensor = self.generator(images)
        return translated

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: the generator."""
        return self.deployable_translation(folded(self.generator), self.known_part(part), layout)


def compared_maps(options: ResnetGeneratorOptions, channels: int) -> dict[str, int]:
    """Channels of the generator's maps that the contrastive loss compares, by name.

    In the numbering of the authors' code, which counts modules, they are 0, 4, 8, 12 and 16 of the antialiased
    generator; without antialiasing they would be 0, 4, 7, 10 and 14.
    """
    maps = options.maps(channels)
    names = dict.fromkeys(("pixels", "down1", "down2", "block1", f"block{min(5, options.blocks)}"))
    return {name: maps[name] for name in names}


def _mirrored(x: Tensor, flips: Tensor) -> Tensor:
    """[N, C, h, w], of which those are mirrored left to right that ``flips``, bool [N], says."""
    return torch.where(flips.view(-1, 1, 1, 1), x.flip(3), x)
