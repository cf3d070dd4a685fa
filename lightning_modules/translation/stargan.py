"""StarGAN v2: pictures of several domains in each other's styles, drawn or of a picture, by one generator."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative
from gesso.common.schedules import Schedule, at
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.random_codes import codes_of_pictures, drawn_codes
from lightning_modules.losses.adversarial import generator_loss
from lightning_modules.losses.regularizers import R1
from lightning_modules.losses.weights import check_weights
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures
from lightning_modules.metrics.sources import SourceEvaluator
from lightning_modules.networks.folding import folded
from lightning_modules.networks.padding import repeat_edges
from lightning_modules.networks.stargan import (
    DomainDiscriminator,
    MappingNetwork,
    StarGANOptions,
    StarGenerator,
    StyleEncoder,
)

#: The networks that make styles and pictures, which learn together from drawn styles.
MAKERS = ("generator", "mapping", "style_encoder")
#: Pictures in a preview's rows and columns.
SHOWN = 6


class StarGANv2(ImageFamily):
    """One generator for all domains, which are the classes of a set (Choi et al. 2020, arXiv:1912.01865).

    A style s of domain y is drawn, F_y(z), or a picture's, E_y(x). Twice in a step, in drawn styles and in those of
    other pictures, generator, mapping network F and style encoder E minimise ::

        -log D_y(G(x, s)) + lambda_sty |E_y(G(x, s)) - s| - lambda_ds |G(x, s) - G(x, s')|
        + lambda_cyc |G(G(x, s), E(x)) - x|

    with s' another style of the same domain; from the styles of pictures the generator alone learns. Picture i of those
    that go through the networks at a time gets the domain, and the second time the style, of picture i + 1; s' is of
    the next picture of that domain after it. (In a batch where there is no other, s' is s, and the term is 0.)

    Args:
        resolution: height and width of the images in pixels, a power of two.
        channels: 1 (grey) or 3 (RGB).
        num_classes: number of domains.
        lambda_sty, lambda_ds, lambda_cyc: weights; ``lambda_ds`` falls linearly to 0 over the paper's 800,000 images.
        r1_gamma: weight of R1 on real images, in each of the discriminator's two updates.
        network: options of all networks.
        generator_optimizer: options of the generator's optimizer and the style encoder's.
        mapping_optimizer, discriminator_optimizer: options of the others.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: fewer than two domains, a resolution that cannot be halved so often, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        num_classes: Count = 2,
        lambda_sty: NonNegative = 1.0,
        lambda_ds: NonNegative | Schedule = Schedule(1.0, 0.0, over_kimg=800.0, course="linear"),
        lambda_cyc: NonNegative = 1.0,
        r1_gamma: NonNegative = 1.0,
        network: StarGANOptions = StarGANOptions(),
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.0, beta2=0.99, weight_decay=1e-4),
        mapping_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-6, beta1=0.0, beta2=0.99, weight_decay=1e-4),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.0, beta2=0.99, weight_decay=1e-4),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(lambda_sty=lambda_sty, lambda_ds=lambda_ds, lambda_cyc=lambda_cyc, r1_gamma=r1_gamma)
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a StarGANv2 needs 2 domains or more, the classes of a set")
        self.multiple = 2**network.halvings
        if resolution & (resolution - 1) or resolution < max(4, 2 * self.multiple):
            raise ValueError(
                f"resolution is {resolution}; it must be a power of two, {max(4, 2 * self.multiple)} or more with "
                f"{network.halvings} halvings"
            )
        self.save_hyperparameters()
        self.lambda_sty, self.lambda_ds, self.lambda_cyc = lambda_sty, lambda_ds, lambda_cyc
        self.r1 = R1(r1_gamma)
        self.resolution, self.channels, self.num_classes = resolution, channels, num_classes
        self.latent_dim, self.style_dim = network.latent_dim, network.style_dim
        self.generator_optimizer, self.mapping_optimizer = generator_optimizer, mapping_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        pictures = {"resolution": resolution, "channels": channels}
        self.generator = StarGenerator(network, channels=channels)
        self.mapping = MappingNetwork(network, num_domains=num_classes)
        self.style_encoder = StyleEncoder(network, **pictures, num_domains=num_classes)
        self.discriminator = DomainDiscriminator(network, **pictures, num_domains=num_classes)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "generator": self.generator_optimizer,
            "mapping": self.mapping_optimizer,
            "style_encoder": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return MAKERS

    def requires_double_backward(self) -> tuple[str, ...]:
        return ("discriminator",) if self.r1.factor else ()

    # ---- training ---------------------------------------------------------------------------------------------------

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return self.present_lambda_ds()

    def present_lambda_ds(self) -> float:
        """The weight of the diversity in the step that comes."""
        return at(self.lambda_ds, self.images_seen, total_kimg=self.total_kimg)

    def step(self, batch: Batch) -> None:
        self.update("discriminator", self.discriminator_losses, batch)
        self.update("discriminator", self.reference_discriminator_losses, batch, log_loss=False)
        self.update(MAKERS, self.generator_losses, batch)
        self.update("generator", self.reference_generator_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Of real pictures in their domains, and of others in drawn styles; R1."""
        domains = batch["label"].roll(-1)
        with torch.no_grad():
            styles = self._drawn(domains)
        return self._judged(batch, domains, styles)

    def reference_discriminator_losses(self, batch: Batch) -> Losses:
        """The same in the styles of pictures."""
        domains = batch["label"].roll(-1)
        with torch.no_grad():
            styles = self.style_encoder(batch["image"].roll(-1, 0), domains)
        losses = self._judged(batch, domains, styles)
        return {name if name == "loss" else f"reference_{name}": value for name, value in losses.items()}

    def _judged(self, batch: Batch, domains: Tensor, styles: Tensor) -> Losses:
        real, labels = batch["image"], batch["label"]
        with torch.no_grad():
            fake = self.generator(real, styles)
        losses = {
            "real": generator_loss("non_saturating", self.discriminator(real, labels)),
            "fake": generator_loss("non_saturating", -self.discriminator(fake, domains)),
        }
        loss = losses["real"] + losses["fake"]
        if self.r1.factor:
            losses["r1"] = self.r1(lambda images: self.discriminator(images, labels), real, fake, self)
            loss = loss + self.r1.weight(self.images_seen) * losses["r1"]
        return {"loss": loss, **losses}

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial term, style, diversity and cycle, in drawn styles."""
        domains = batch["label"].roll(-1)
        return self._made(batch, domains, self._drawn(domains), self._drawn(domains))

    def reference_generator_losses(self, batch: Batch) -> Losses:
        """The same in the styles of pictures."""
        images, labels = batch["image"], batch["label"]
        domains = labels.roll(-1)
        styles = self.style_encoder(images.roll(-1, 0), domains)
        with torch.no_grad():
            others = self.style_encoder(images[second_references(labels)], domains)
        return self._made(batch, domains, styles, others)

    def _drawn(self, domains: Tensor) -> Tensor:
        styles: Tensor = self.mapping(self.randn(len(domains), self.latent_dim), domains)
        return styles

    def _made(self, batch: Batch, domains: Tensor, styles: Tensor, others: Tensor) -> Losses:
        images = batch["image"]
        fake = self.generator(images, styles)
        with torch.no_grad():
            another = self.generator(images, others)
        again = self.generator(fake, self.style_encoder(images, batch["label"]))
        losses = {
            "adversarial": generator_loss("non_saturating", self.discriminator(fake, domains)),
            "style": F.l1_loss(self.style_encoder(fake, domains), styles),
            "diversity": F.l1_loss(fake, another),
            "cycle": F.l1_loss(again, images),
        }
        lambda_ds = self.present_lambda_ds()
        loss = losses["adversarial"] + self.lambda_sty * losses["style"] + self.lambda_cyc * losses["cycle"]
        return {"loss": loss - lambda_ds * losses["diversity"], **losses}

    def held_out_losses(self, batch: Batch) -> Losses:
        """Pictures in their own styles."""
        images = batch["image"]
        return {"own": F.l1_loss(self.generator(images, self.style_encoder(images, batch["label"])), images)}

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def directions(self) -> tuple[str, ...]:
        """``to-0``, ``to-1`` ...: into each domain, from any."""
        return tuple(f"to-{domain}" for domain in range(self.num_classes))

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """See ``Abilities.translate``: each in a style drawn for it, the same one every time."""
        return self.translate_in_style(images, direction, self.translation_styles(images, direction))

    def translate_in_style(self, images: Tensor, direction: str, styles: Tensor) -> Tensor:
        """See ``Abilities.translate_in_style``."""
        height, width = images.shape[2:]
        # Whole multiples, by repeated edges; the pictures come back at their size. Of one pixel no norm is left.
        padded = repeat_edges(images, self.multiple, least=2 * self.multiple)
        made = self.generator(padded, styles.to(self.device).expand(len(images), -1))
        return made[:, :, :height, :width].float().clamp(-1, 1)

    def style_of(self, images: Tensor, direction: str) -> Tensor:
        """See ``Abilities.style_of``; pictures of another size than the family's are resized."""
        images = images.to(self.device)
        if images.shape[2:] != (self.resolution, self.resolution):
            sides = (self.resolution, self.resolution)
            images = F.interpolate(images, sides, mode="bilinear", antialias=True).clamp(-1, 1)
        styles: Tensor = self.style_encoder(images, self._domains(direction, len(images)))
        return styles

    def draw_styles(self, count: int, *, seed: int, direction: str | None = None) -> Tensor:
        """See ``Abilities.draw_styles``."""
        return self._mapped(drawn_codes(count, self.latent_dim, seed=seed), self.known_direction(direction))

    def translation_styles(self, images: Tensor, direction: str | None = None) -> Tensor:
        """See ``Abilities.translation_styles``: drawn out of a picture's pixels, the same in every batch."""
        return self._mapped(codes_of_pictures(images, self.latent_dim), self.known_direction(direction))

    def _mapped(self, latents: Tensor, direction: str) -> Tensor:
        styles: Tensor = self.mapping(latents.to(self.device), self._domains(direction, len(latents)))
        return styles

    def _domains(self, direction: str, count: int) -> Tensor:
        return torch.full((count,), self.directions().index(direction), device=self.device)

    def deployable_parts(self) -> tuple[str, ...]:
        """See ``Abilities.deployable_parts``: the directions."""
        return self.directions()

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: pictures and latents of a domain's styles to pictures."""
        domain = self.directions().index(self.known_part(part))
        height, width = layout.sides(self.resolution, self.multiple)
        if height % self.multiple or width % self.multiple or min(height, width) < 2 * self.multiple:
            raise ValueError(
                f"--size {height}x{width}: sides are multiples of {self.multiple}, and {2 * self.multiple} or more, in "
                f"an exported {type(self).__name__}"
            )
        generator, mapping = folded(self.generator), folded(self.mapping)
        images = torch.zeros(layout.count, self.channels, height, width)
        head = mapping.heads[domain]

        def made(source: Tensor, latents: Tensor) -> Tensor:
            return generator(source, head(mapping.shared(latents))).clamp(-1, 1)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            return {**pictures, "style_code": drawn_codes(int(index[-1]) + 1, self.latent_dim, seed=seed)[index]}

        about = f"pictures, float32 [N, C, H, W] in [-1, 1]; H and W are multiples of {self.multiple}"
        return Deployable(
            Named(made, generator=generator, mapping=mapping),
            {
                "source": Port(images, about, {0: "batch", 2: "height", 3: "width"}, "image", self.multiple),
                "style_code": Port(
                    torch.zeros(layout.count, self.latent_dim),
                    f"latents ~ N(0, I) of styles, float32 [N, {self.latent_dim}]",
                    {0: "batch"},
                ),
            },
            "picture",
            "pictures of the domain, float32 [N, C, H, W] in [-1, 1]",
            draw,
            lambda inputs: self.translate_in_style(inputs["source"], part, self._mapped(inputs["style_code"], part)),
        )

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Held-out images in each other's styles; and rows of one image in drawn styles, a domain each."""
        return {"samples": self.sheet(held_out), "styles": self.styles_sheet(held_out, seed=seed)}

    def sheet(self, held_out: Batch) -> Preview:
        """Up to six held-out images: each row is one of them, in the style and the domain of the one above it."""
        images, labels = held_out["image"][:SHOWN], held_out["label"][:SHOWN]
        styles = self.style_encoder(images, labels)
        rows = [torch.ones_like(images[:1]), images]
        for image in images:
            made = self.translate_in_style(image.expand(len(images), -1, -1, -1), "", styles)
            rows += [image[None], made.to(images)]
        return Preview(torch.cat(rows), columns=len(images) + 1)

    def styles_sheet(self, held_out: Batch, *, seed: int) -> Preview:
        """Rows of an image, and the same in drawn styles, two rows for each of the first domains."""
        rows: list[Tensor] = []
        for direction in self.directions()[:SHOWN]:
            styles = self.draw_styles(SHOWN, seed=seed, direction=direction)
            for image in held_out["image"][:2]:
                repeated = image.expand(SHOWN, -1, -1, -1)
                rows += [image[None], self.translate_in_style(repeated, direction, styles).to(image)]
        return Preview(torch.cat(rows), columns=SHOWN + 1)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares held-out pictures in drawn styles of a domain with its real ones, and with their sources."""
        if options.metrics == ():
            return None
        direction = self.known_direction(options.direction)
        domain = self.directions().index(direction)
        return SourceEvaluator(
            "translation",
            lambda images: self.translate(images, direction),
            options,
            self.described(),
            source=Pictures(split=options.split),
            reference=Pictures(split=options.reference_split, limit=options.reference_samples, label=domain),
        )


def second_references(labels: Tensor) -> Tensor:
    """For each row i: the next row after i + 1, around the end, that has row i + 1's label; i + 1 if no other has.

    Args:
        labels: int64 [N].

    Returns:
        int64 [N].
    """
    count = len(labels)
    rows = torch.arange(count, device=labels.device)
    first = (rows + 1) % count
    # How far each row lies behind row i + 1; itself comes last.
    distance = (rows[None] - first[:, None] - 1) % count
    same = labels[None] == labels[first][:, None]
    return torch.where(same, distance, count).argmin(1)
