"""MUNIT: one content in many styles of another domain, learnt without pairs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from lightning_modules.kinds.random_codes import codes_of_pictures, drawn_codes
from lightning_modules.kinds.translating import TranslatingFamily, domains
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.folding import folded
from lightning_modules.networks.multiscale_discriminator import (
    MultiscaleDiscriminator,
    MultiscaleDiscriminatorOptions,
)
from lightning_modules.networks.munit import MunitAutoencoder, MunitOptions
from lightning_modules.networks.padding import repeat_edges
from lightning_modules.networks.precision import in_full_precision

#: Styles of a picture in the preview.
STYLES = 7


class MUNIT(TranslatingFamily):
    """Two autoencoders that share their contents, not their styles (Huang et al. 2018, arXiv:1804.04732).

    A picture is a content c, a map, and a style s, a vector, which is N(0, I) over a domain. The autoencoders, which
    step together, minimise, for both domains, ::

        lambda_gan |D_b(x_ab) - 1|^2 + lambda_x |x_a' - a| + lambda_s |s_b' - s_b| + lambda_c |c_a' - c_a|
        + lambda_cycle |x_aba - a|

    with x_ab of the content of a and a drawn style s_b, of which c_a' and s_b' are found again; x_a' is a, decoded of
    its own code, and x_aba comes of c_a' and the style of a.

    Args:
        resolution: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB), of both domains.
        lambda_gan, lambda_x, lambda_s, lambda_c, lambda_cycle: weights; ``lambda_cycle`` 0: no second way back, and a
            sixth of the passes less.
        autoencoder: options of both autoencoders.
        discriminator: options of both discriminators.
        generator_optimizer, discriminator_optimizer: options of each network's optimizer.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: a resolution that the networks cannot halve so often, or a weight below 0.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("autoencoder", "discriminator")

    def __init__(
        self,
        *,
        resolution: Count = 256,
        channels: int = 3,
        lambda_gan: NonNegative = 1.0,
        lambda_x: NonNegative = 10.0,
        lambda_s: NonNegative = 1.0,
        lambda_c: NonNegative = 1.0,
        lambda_cycle: NonNegative = 0.0,
        autoencoder: MunitOptions = MunitOptions(),
        discriminator: MultiscaleDiscriminatorOptions = MultiscaleDiscriminatorOptions(),
        generator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.5, weight_decay=1e-4),
        discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, beta1=0.5, weight_decay=1e-4),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        weights = {"lambda_gan": lambda_gan, "lambda_x": lambda_x, "lambda_s": lambda_s, "lambda_c": lambda_c}
        check_weights(**weights, lambda_cycle=lambda_cycle)
        self.save_hyperparameters()
        self.weights, self.lambda_cycle = weights, lambda_cycle
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.style_dim, self.multiple = autoencoder.style_dim, 2**autoencoder.halvings
        if resolution % self.multiple:
            raise ValueError(f"resolution is {resolution}; it must be a multiple of {self.multiple} (halvings)")
        self.autoencoder_a = MunitAutoencoder(autoencoder, channels=channels)
        self.autoencoder_b = MunitAutoencoder(autoencoder, channels=channels)
        self.discriminator_a = MultiscaleDiscriminator(discriminator, channels=channels)
        self.discriminator_b = MultiscaleDiscriminator(discriminator, channels=channels)
        self.discriminator_a.check_side(resolution)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {
            "autoencoder_a": self.generator_optimizer,
            "autoencoder_b": self.generator_optimizer,
            "discriminator_a": self.discriminator_optimizer,
            "discriminator_b": self.discriminator_optimizer,
        }

    def generating_networks(self) -> tuple[str, ...]:
        return ("autoencoder_a", "autoencoder_b")

    # ---- training ---------------------------------------------------------------------------------------------------

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update(("discriminator_a", "discriminator_b"), self.discriminator_losses, batch)
        self.update(("autoencoder_a", "autoencoder_b"), self.autoencoder_losses, batch)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Least squares on real pictures, and on contents of the other domain in drawn styles."""
        a, b = batch["image"], batch["image_b"]
        style_a, style_b = self.randn(len(a), self.style_dim), self.randn(len(b), self.style_dim)
        with torch.no_grad():
            fake_a = self.autoencoder_a.decode(self.autoencoder_b.encode(b)[0], style_a)
            fake_b = self.autoencoder_b.decode(self.autoencoder_a.encode(a)[0], style_b)
        loss_a = _against(self.discriminator_a, a, fake_a)
        loss_b = _against(self.discriminator_b, b, fake_b)
        return {"loss": self.weights["lambda_gan"] * (loss_a + loss_b), "loss_a": loss_a, "loss_b": loss_b}

    def autoencoder_losses(self, batch: Batch) -> Losses:
        """Adversarial terms, and what is found again: pictures, contents and styles."""
        a, b = batch["image"], batch["image_b"]
        style_a, style_b = self.randn(len(a), self.style_dim), self.randn(len(b), self.style_dim)
        content_a, own_a = self.autoencoder_a.encode(a)
        content_b, own_b = self.autoencoder_b.encode(b)
        # No picture sees another: two passes in one.
        same_a, fake_a = self._decoded("a", (content_a, own_a), (content_b, style_a))
        same_b, fake_b = self._decoded("b", (content_b, own_b), (content_a, style_b))
        found_b, found_style_a = self.autoencoder_a.encode(fake_a)
        found_a, found_style_b = self.autoencoder_b.encode(fake_b)
        losses = {
            "adversarial_a": _for(self.discriminator_a, fake_a),
            "adversarial_b": _for(self.discriminator_b, fake_b),
            "image_a": F.l1_loss(same_a, a),
            "image_b": F.l1_loss(same_b, b),
            "style_a": F.l1_loss(found_style_a, style_a),
            "style_b": F.l1_loss(found_style_b, style_b),
            "content_a": F.l1_loss(in_full_precision(found_a), in_full_precision(content_a)),
            "content_b": F.l1_loss(in_full_precision(found_b), in_full_precision(content_b)),
        }
        names = {"adversarial": "lambda_gan", "image": "lambda_x", "style": "lambda_s", "content": "lambda_c"}
        loss = torch.stack([self.weights[names[name[:-2]]] * value for name, value in losses.items()]).sum()
        if self.lambda_cycle:
            losses["cycle_a"] = F.l1_loss(self.autoencoder_a.decode(found_a, own_a), a)
            losses["cycle_b"] = F.l1_loss(self.autoencoder_b.decode(found_b, own_b), b)
            loss = loss + self.lambda_cycle * (losses["cycle_a"] + losses["cycle_b"])
        return {"loss": loss, **losses}

    def _decoded(self, domain: str, *codes: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        contents, styles = (torch.cat(parts) for parts in zip(*codes, strict=True))
        return self._autoencoder(domain).decode(contents, styles).chunk(len(codes))

    def _autoencoder(self, domain: str) -> MunitAutoencoder:
        return self.autoencoder_a if domain == "a" else self.autoencoder_b

    def held_out_losses(self, batch: Batch) -> Losses:
        return {
            "image_a": F.l1_loss(self.autoencoder_a(batch["image"]), batch["image"]),
            "image_b": F.l1_loss(self.autoencoder_b(batch["image_b"]), batch["image_b"]),
        }

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """See ``TranslatingFamily.translate``: each in a style drawn for it, the same one every time."""
        return self.translate_in_style(images, direction, self.translation_styles(images, direction))

    def translate_in_style(self, images: Tensor, direction: str, styles: Tensor) -> Tensor:
        """See ``Abilities.translate_in_style``."""
        source, target = (self._autoencoder(domain) for domain in direction.split("-to-"))
        height, width = images.shape[2:]
        # Whole multiples, by repeated edges; the pictures come back at their size.
        padded = repeat_edges(images, self.multiple)
        source.check_sides(padded)
        made = in_style(source, target, padded, styles.to(self.device).expand(len(images), -1))
        return made[:, :, :height, :width]

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: pictures and styles of a direction to pictures."""
        names = self.known_part(part).split("-to-")
        source, target = (folded(self._autoencoder(domain)) for domain in names)
        port = self.source_port(part, layout, multiple=self.multiple)
        height, width = port.example.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"--size {height}x{width}: sides are multiples of {self.multiple} in an exported MUNIT")
        styles = torch.zeros(layout.count, self.style_dim)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            drawn = self.draw_styles(int(index[-1]) + 1, seed=seed)
            return {**pictures, "style_code": drawn[index]}

        return Deployable(
            Named(lambda images, style: in_style(source, target, images, style), source=source, target=target),
            {
                "source": port,
                "style_code": Port(styles, f"styles ~ N(0, I), float32 [N, {self.style_dim}]", {0: "batch"}),
            },
            "picture",
            "pictures of the other domain, float32 [N, C, H, W] in [-1, 1]",
            draw,
            lambda inputs: self.translate_in_style(inputs["source"], part, inputs["style_code"]),
        )

    def draw_styles(self, count: int, *, seed: int, direction: str | None = None) -> Tensor:
        """See ``Abilities.draw_styles``: the same of both domains."""
        return drawn_codes(count, self.style_dim, seed=seed)

    def style_of(self, images: Tensor, direction: str) -> Tensor:
        """See ``Abilities.style_of``."""
        style: Tensor = self._autoencoder(direction.split("-to-")[1]).encode(images.to(self.device))[1]
        return style

    def translation_styles(self, images: Tensor, direction: str | None = None) -> Tensor:
        """See ``Abilities.translation_styles``: drawn out of a picture's pixels, the same in every batch."""
        return codes_of_pictures(images, self.style_dim).to(self.device)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Held-out images above their translations; and rows of one image in several styles of the other domain."""
        return {**super().previews(held_out, seed=seed), "styles": self.styles_sheet(held_out, seed=seed)}

    def styles_sheet(self, held_out: Batch, *, seed: int) -> Preview:
        """Rows of an image, and the same in drawn styles of the other domain: up to three rows for each direction."""
        rows: list[Tensor] = []
        styles = self.draw_styles(STYLES, seed=seed)
        for direction in self.directions():
            for image in held_out[domains(direction)[0]][:3]:
                repeated = image.expand(STYLES, -1, -1, -1)
                rows += [image[None], self.translate_in_style(repeated, direction, styles).to(image)]
        return Preview(torch.cat(rows), columns=STYLES + 1)


def in_style(source: MunitAutoencoder, target: MunitAutoencoder, images: Tensor, styles: Tensor) -> Tensor:
    """Contents of ``images`` [N, C, H, W], of the source's domain, in styles [N, style_dim] of the target's."""
    return target.decode(source.content_encoder(images), styles)


def _against(discriminator: MultiscaleDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    """D(fake)^2 + (D(real) - 1)^2, summed over sizes."""
    pairs = zip(discriminator(real), discriminator(fake), strict=True)
    # Ours have a factor of 1/2.
    return 2 * torch.stack([discriminator_loss("lsgan", *logits) for logits in pairs]).sum()


def _for(discriminator: MultiscaleDiscriminator, fake: Tensor) -> Tensor:
    """(D(fake) - 1)^2, summed over sizes."""
    return 2 * torch.stack([generator_loss("lsgan", logits) for logits in discriminator(fake)]).sum()
