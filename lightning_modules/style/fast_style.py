"""Fast style transfer: a network trained for a few styles (Johnson et al. 2016, Dumoulin et al. 2017)."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative, Range
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import Renamed
from lightning_modules.kinds.learned_style import AdversarialStyleFamily
from lightning_modules.kinds.stylizer import Style
from lightning_modules.kinds.stylizing import StyleFamily, weighted_sum
from lightning_modules.losses.perceptual import content_loss, total_variation
from lightning_modules.losses.style import gram, random_directions, relative_gram_loss, relative_sliced_wasserstein_loss
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.fast_style import MARGIN, SCALE, FastStyleNetwork, FastStyleOptions
from lightning_modules.networks.folding import folded
from lightning_modules.networks.octaves import octaves
from lightning_modules.networks.style_head import LAYERS, feature_statistics, style_statistics
from lightning_modules.pictures.crops import random_parts
from lightning_modules.pictures.sizes import fit
from lightning_modules.pictures.tiles import Tile, tiles
from lightning_modules.style.tiled_statistics import whole_statistics

CONTENT_LAYER = "relu3_1"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
#: Numbers of random directions, and of places of a map, in a step of the sliced Wasserstein loss.
DIRECTIONS, PLACES = 32, 4096
#: ``gram``: Johnson's; ``sliced_wasserstein``: compares the whole distribution of the features (Heitz et al. 2021),
#: which a few saturated spots cannot satisfy.
StyleLoss = Literal["gram", "sliced_wasserstein"]


class FastStyle(AdversarialStyleFamily, StyleFamily):
    """Trains one network for one or several style pictures, on a stream of photographs.

    Minimises content_weight * content + style_weight * style + tv_weight * tv + temporal_weight * temporal. Several
    styles share all weights but those of the norms, and can be mixed afterwards, also by masks. Learned style losses
    can be added: see ``AdversarialStyleFamily``; a classifier's classes are ``styles``, and the discriminator sees
    random squares of these.

    Args:
        styles: files of the style pictures.
        resolution: height and width of the photographs in training, in pixels; any size afterwards.
        style_size: longer side of the style pictures in pixels; smaller gives finer strokes.
        noise: standard deviation of a grey noise that is added to the network's input, from which it makes texture in
            flat areas (Ulyanov et al. 2016, "Texture Networks"); the same for all pictures of one size.
        noise_octaves: number of scales of that noise: grains of 1, 2, 4, ... pixels, each as strong. From the finest
            alone large flat areas get one small stroke over and over.
        content_weight: of the mean squared difference of features at relu3_1.
        style_weight: of the style loss, averaged over four layers.
        style_loss: relative difference of Gram matrices, or relative sliced Wasserstein distance: see ``StyleLoss``.
        style_scales: number of scales at which the style is compared: the picture, its half, its quarter, ... The
            layers see so many times further at little cost; what is wider than they see may repeat itself.
        layer_weights: of relu1_1, relu2_1, relu3_1 and relu4_1 in the style loss; with 0 for the last one a step takes
            half as long, and textures are smaller.
        tv_weight: of the total variation.
        temporal_weight: of the temporal consistency, for video.
        temporal: options of that loss.
        network: options of the network.
        optimizer: options of its optimizer.
        channels_last: slower here: the maps have few channels, and instance norms.
        options: those of ``AdversarialStyleFamily``, ``LearnedStyleFamily`` and ``ImageFamily``.

    Raises:
        ValueError: a weight below 0, or a classifier of one style.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("network", *AdversarialStyleFamily.learned_networks)
    renamed_options: ClassVar[Renamed] = {
        "network": ("network.kind",),
        "gradient_checkpointing": ("network.gradient_checkpointing",),
        "lr": ("optimizer.lr",),
    }

    def __init__(
        self,
        *,
        styles: Sequence[str] = (),
        resolution: Count = 256,
        style_size: Annotated[int, Range(16)] = 256,
        noise: NonNegative = 0.1,
        content_weight: NonNegative = 1.0,
        style_weight: NonNegative = 10.0,
        style_loss: StyleLoss = "gram",
        layer_weights: tuple[NonNegative, NonNegative, NonNegative, NonNegative] = (1.0, 1.0, 1.0, 1.0),
        tv_weight: NonNegative = 0.1,
        temporal_weight: NonNegative = 0.0,
        temporal: TemporalOptions = TemporalOptions(),
        network: FastStyleOptions = FastStyleOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4),
        channels_last: bool = False,
        noise_octaves: Annotated[int, Range(1, 8)] = 1,
        style_scales: Annotated[int, Range(1, 5)] = 1,
        **options: Any,
    ) -> None:
        super().__init__(channels_last=channels_last, **options)
        self.weights = {"content": content_weight, "style": style_weight, "tv": tv_weight, "temporal": temporal_weight}
        self.weights |= self.learned_weights
        check_weights(
            layer_weights=min(layer_weights), **{f"{name}_weight": weight for name, weight in self.weights.items()}
        )
        # Absolute, so that a checkpoint names its style pictures from any folder.
        styles = [os.path.abspath(file) for file in styles]
        self.save_hyperparameters()
        self.resolution, self.noise, self.style_loss, self.optimizer = resolution, noise, style_loss, optimizer
        self.temporal, self.noise_octaves, self.style_scales = temporal, noise_octaves, style_scales
        self.styles = tuple(styles)
        self.layer_weights = dict(zip(STYLE_LAYERS, layer_weights, strict=True))
        self.style_size = style_size
        count = max(1, len(styles))
        self.network = FastStyleNetwork(network, styles=count)
        self.build_judges(resolution)
        if self.code_weights["style_classifier"] and count < 2:
            raise ValueError("style_classifier_weight: a classifier of one style is always right: name more by styles")
        self._pictures: list[Tensor] = []
        self._statistics: Tensor | None = None
        self._targets: list[dict[str, Tensor]] = []
        self._still_noise = torch.empty(1, 1, 0, 0)

    @property
    def own_styles(self) -> tuple[str, ...]:
        return tuple(Path(file).stem for file in self.styles)

    def pictures(self) -> dict[str, tuple[str, ...]]:
        return {"styles": self.styles}

    def take_pictures(self, option: str, pictures: Sequence[Tensor]) -> None:
        if not pictures:
            raise ValueError("FastStyle needs a style picture: set --model.styles '[FILE, ...]'")
        self._pictures = [fit(picture, self.style_size) for picture in pictures]
        self._targets, self._statistics = [], None

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"network": self.optimizer, **self.judges()}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step_kind(self) -> Hashable | None:
        """See ``ImageFamily.step_kind``: the host draws the directions of the sliced loss."""
        return () if self.style_loss == "gram" else None

    def step(self, batch: Batch) -> None:
        self.update("network", self.training_losses, batch)
        self.update_style_discriminator(batch)

    def training_losses(self, batch: Batch) -> Losses:
        """All terms, with a random style for each photograph."""
        count = len(self.own_styles)
        drawn = (self.rand(len(batch["image"])) * count).long().clamp_max(count - 1)
        images = batch["image"]
        noise = self._grains(self.randn(len(images), 1, *images.shape[2:]))
        return self._losses(images, drawn, noise, seed=self.randint(1, 1 << 62)[0], training=True)

    def losses(self, batch: Batch) -> Losses:
        """All terms, each unweighted and weighted; the styles are used in turn."""
        images = batch["image"]
        turns = torch.arange(len(images), device=self.device)
        return self._losses(images, turns % len(self.own_styles), self.still_noise(images), seed=0)

    def still_noise(self, pictures: Tensor) -> Tensor:
        """The input noise for pictures of this size, [1, 1, H, W]; constant, so that it does not flicker in a video."""
        known, of = ((x.shape[2:], x.device, x.dtype) for x in (self._still_noise, pictures))
        if known != of:
            self._still_noise = self._grains(self._drawn_noise(*pictures.shape[2:])).to(pictures)
        return self._still_noise

    def _grains(self, white: Tensor) -> Tensor:
        return self.noise * octaves(white, self.noise_octaves)

    def _drawn_noise(self, height: int, width: int) -> Tensor:
        return torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(0))

    def _losses(self, images: Tensor, styles: Tensor, noise: Tensor, *, seed: int, training: bool = False) -> Losses:
        encoder = self.encoder
        numbers = torch.arange(len(self.own_styles), device=styles.device)
        mix = (styles[:, None] == numbers).float()[:, :, None, None]
        pictures = self.network(images, mix, noise)
        with torch.no_grad():
            content = encoder(images, (CONTENT_LAYER,))[CONTENT_LAYER]
        # Only as deep as the last layer with a weight.
        layers = {name: weight for name, weight in self.layer_weights.items() if weight}
        found = encoder(pictures, (*layers, CONTENT_LAYER, *(LAYERS if self.has_codes else ())))
        by_scale = [found, *(encoder(smaller, tuple(layers)) for smaller in halved(pictures, self.style_scales)[1:])]
        generator = torch.Generator().manual_seed(seed)
        by_layer = [
            weight * self._style_loss(features[name], targets[name][styles], generator)
            for features, targets in zip(by_scale, self.style_targets(), strict=True)
            for name, weight in layers.items()
        ]
        terms = {
            "content": content_loss(found[CONTENT_LAYER], content),
            "style": sum(by_layer, pictures.new_zeros(())) / len(STYLE_LAYERS) / self.style_scales,
            "tv": total_variation(pictures),
        }
        if self.weights["temporal"]:
            # In a video the noise does not move with the picture.
            terms["temporal"] = self.temporal_loss(images, pictures, lambda moved: self.network(moved, mix, noise))
        if self.has_codes:
            codes = self.style_head(feature_statistics(found))
            terms |= self.code_terms(codes, self.style_head(self.own_statistics()), styles)
        if training and self.style_adversarial_weight:
            real = random_parts(self._pictures, styles, self.rand(len(images), 2), size=images.shape[2])
            terms |= self.adversarial_terms(pictures, self.own_statistics()[styles], real)
        return weighted_sum(terms, self.weights)

    def _style_loss(self, features: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        if self.style_loss == "gram":
            return relative_gram_loss(features, target)
        directions = random_directions(torch.randn(DIRECTIONS, features.shape[1], generator=generator))
        return relative_sliced_wasserstein_loss(
            some_places(features, generator), target, directions.to(features, non_blocking=True)
        )

    @torch.no_grad()
    def style_targets(self) -> list[dict[str, Tensor]]:
        """Targets of the style loss by scale and layer: Gram matrices [K, C, C], or features [K, C, places].

        Computed once, in fp32.
        """
        if not self._targets:
            if not self._pictures:
                raise RuntimeError("FastStyle has no style pictures yet: take_pictures comes first")
            with torch.autocast(self.device.type, enabled=False):
                scales = zip(
                    *(halved(picture.to(self.device), self.style_scales) for picture in self._pictures), strict=True
                )
                found = [[self.encoder(picture, STYLE_LAYERS) for picture in pictures] for pictures in scales]
            self._targets = [
                {name: self._targets_of([features[name] for features in styles]) for name in STYLE_LAYERS}
                for styles in found
            ]
        return self._targets

    @torch.no_grad()
    def own_statistics(self) -> Tensor:
        """Statistics of the styles for learned style losses, [K, STATISTICS]; computed once, in fp32."""
        if self._statistics is None:
            with torch.autocast(self.device.type, enabled=False):
                found = [style_statistics(self.encoder, picture.to(self.device)) for picture in self._pictures]
            self._statistics = torch.cat(found)
        return self._statistics

    def _targets_of(self, styles: Sequence[Tensor]) -> Tensor:
        if self.style_loss == "gram":
            return torch.cat([gram(features) for features in styles])
        generator = torch.Generator().manual_seed(0)
        places = [some_places(features, generator) for features in styles]
        fewest = min(features.shape[2] for features in places)
        return torch.cat([features[:, :, :fewest] for features in places])

    def styles_of(self, batch: Batch) -> list[tuple[Tensor, Style]]:
        numbers = range(len(self._pictures))
        alone = [Style(weights=[float(number == other) for other in numbers]) for number in numbers]
        return [(picture.to(self.device), style) for picture, style in zip(self._pictures, alone, strict=True)]

    def deployable_parts(self) -> tuple[str, ...]:
        return ("stylizer",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: a picture, and shares of the styles where there are several.

        The noise that the network sees is a constant of a fixed size; where the size is free it is an input.
        """
        self.known_part(part)
        alone, styles = folded(self.network), max(1, len(self.own_styles))
        height, width = layout.sides(self.resolution)
        content, noise = torch.zeros(1, 3, height, width), self._drawn_noise(height, width)
        with_noise = layout.dynamic and self.noise > 0

        def picture(content: Tensor, *others: Tensor) -> Tensor:
            mix = others[0][:, :, None, None] if styles > 1 else torch.ones(1, 1, 1, 1)
            given = others[-1] if with_noise else constant.get_buffer("noise")
            return alone(content, mix, self._grains(given) if self.noise else None)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            inputs = dict(pictures)
            if styles > 1:
                number = torch.arange(styles)[None] == index[:1, None] % styles
                inputs["mix"] = torch.where(index[:1, None] % 3 == 2, 1 / styles, number.float())
            if with_noise:
                inputs["noise"] = self._drawn_noise(*inputs["content"].shape[2:])
            return inputs

        def run(inputs: Inputs) -> Tensor:
            mix = inputs["mix"][0].tolist() if styles > 1 else None
            return self.stylize(inputs["content"], Style(weights=mix))

        free = {2: "height", 3: "width"}
        ports = {"content": Port(content, "a picture, float32 [1, 3, H, W] in [-1, 1]", free, "image")}
        if styles > 1:
            shares = torch.full((1, styles), 1 / styles)
            ports["mix"] = Port(
                shares,
                f"shares of {', '.join(self.own_styles)}, float32 [1, {styles}], with a sum of 1",
                names=self.own_styles,
            )
        if with_noise:
            ports["noise"] = Port(noise, "N(0, 1), the same for all frames of a video, float32 [1, 1, H, W]", free)
        constant = Named(picture, network=alone)
        constant.register_buffer("noise", noise)
        about = "the stylised picture, float32 [1, 3, H, W] in [-1, 1]"
        return Deployable(constant, ports, "picture", about, draw, run)

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``: ``style`` has no pictures; weights and masks are for the network's fixed styles.

        ``alpha`` interpolates between content and result, pixel by pixel.
        """
        if style.pictures:
            raise ValueError(
                f"this network draws in styles of its own ({', '.join(self.own_styles)}): "
                "leave out the style pictures, and mix these by weights"
            )
        mix = style.shares(content, len(self.own_styles))[None].to(content)
        noise = self.still_noise(content)
        parts = tiles(content.shape[2:], tile, margin=MARGIN, multiple=SCALE)

        def run(part: Tile) -> Tensor:
            here = mix if mix.shape[2:] == (1, 1) else part.seen(mix)
            return self.network(part.seen(content), here, part.seen(noise))

        picture = torch.empty_like(content)
        with whole_statistics(self.network, run, parts):
            for part in parts:
                part.put(run(part), picture)
        return content + style.alpha * (picture - content)


def halved(picture: Tensor, count: int) -> list[Tensor]:
    """A picture [N, C, H, W], its half, its quarter, ... by means of 2 x 2: ``count`` of them."""
    pictures = [picture]
    for _ in range(count - 1):
        pictures.append(F.avg_pool2d(pictures[-1], 2, ceil_mode=True))
    return pictures


def some_places(features: Tensor, generator: torch.Generator) -> Tensor:
    """Features [N, C, H, W] at up to ``PLACES`` places drawn in random order: [N, C, places]."""
    flat = features.flatten(2)
    drawn = torch.randperm(flat.shape[2], generator=generator)[:PLACES]
    return flat[:, :, drawn.to(flat.device)]
