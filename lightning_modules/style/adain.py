"""Arbitrary style transfer by adaptive instance normalisation (AdaIN, Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, NonNegative
from gesso.common.ranks import mean_over_ranks
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import Renamed
from lightning_modules.kinds.learned_style import AdversarialStyleFamily
from lightning_modules.kinds.pruned import PrunedFamily
from lightning_modules.kinds.stylizer import Style, resize_shares
from lightning_modules.kinds.stylizing import PICTURE, StyleFamily, weighted_sum
from lightning_modules.losses.balance import load_balance_loss
from lightning_modules.losses.perceptual import content_loss
from lightning_modules.losses.style import mean_std, statistics_loss
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.adain import Decoder, DecoderOptions
from lightning_modules.networks.experts import ExpertOptions, Router, Routing, mixed
from lightning_modules.networks.folding import folded
from lightning_modules.networks.instance_norm import adain
from lightning_modules.networks.style_head import feature_statistics
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.tiles import Tile, merged_mean_std, tiles

#: The encoder's layer for AdaIN, and by how much its map is smaller than the picture.
LAYER, SCALE = "relu4_1", 8
#: The layers whose statistics make the style loss.
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
#: Pixels around a place on which its result depends: 37 by the encoder, 30 by the decoder.
MARGIN = 72
#: The same with experts, two convolutions at the encoder's map.
EXPERTS_MARGIN = 88

#: Statistics of one layer: mean and standard deviation, [N, C, 1, 1] each.
LayerStatistics = tuple[Tensor, Tensor]
#: Statistics of a style by layer.
Statistics = dict[str, LayerStatistics]
#: ``none``, or statistics of two styles mixed by channel or by layer.
StyleMixing = Literal["none", "channel", "layer"]


class AdaINTransfer(nn.Module):
    """A ``Stylizer`` of one forward pass, for any style: encoder, AdaIN and decoder.

    Args:
        encoder: VGG19 with published weights.
        decoder: a trained decoder.
        experts: the decoder's, if it has some.
    """

    def __init__(self, encoder: VGG19, decoder: Decoder, experts: ExpertOptions = ExpertOptions()) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.gate = experts.gate
        self.margin = EXPERTS_MARGIN if experts.count else MARGIN

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """Several styles are mixed as features: T(c, s_1 ... s_K) = g(Σ w_k AdaIN(f(c), f(s_k)))."""
        height, width = content.shape[2:]
        share = style.shares(content, len(style.pictures))
        share = resize_shares(share, (-(-height // SCALE), -(-width // SCALE)))
        targets = style.of_each(lambda number, picture: self._statistics(picture, tile), tile)
        parts = tiles((height, width), tile, margin=self.margin, multiple=SCALE)
        # The content's statistics are those of the whole picture: known only after a first pass over its tiles.
        mean, std = self._statistics(content, tile) if len(parts) > 1 else (None, None)
        picture = torch.empty_like(content)
        for part in parts:
            features = self._features(part.seen(content))
            if mean is None or std is None:
                mean, std = mean_std(features)
            routing = self._routing((mean, std), targets, share, style.alpha)
            normalized = (features - mean) / std
            here = share if share.shape[1:] == (1, 1) else part.seen(share, SCALE)
            target = torch.zeros_like(features)
            for place, (style_mean, style_std) in zip(here, targets, strict=True):
                target += place * (normalized * style_std + style_mean)
            if routing is not None and routing.shares.shape[2:] != (1, 1):
                routing = routing._replace(shares=part.seen(routing.shares, SCALE))
            decoded = self.decoder(style.alpha * target + (1 - style.alpha) * features, routing)
            part.put(decoded.clamp(-1, 1), picture)
        return picture

    def _routing(
        self, content: LayerStatistics, styles: Sequence[LayerStatistics], share: Tensor, alpha: float
    ) -> Routing | None:
        """Whole pictures' statistics choose; experts are mixed as styles are, place by place."""
        router = self.decoder.router
        if router is None:
            return None
        own = routed(router, content)
        if self.gate == "content":
            return own
        found = [(place, routed(router, each)) for place, each in zip(share, styles, strict=True)]
        return mixed([(alpha * place, each) for place, each in found] + [(1 - alpha, own)] * (alpha != 1))

    def _features(self, picture: Tensor) -> Tensor:
        return self.encoder(picture, (LAYER,))[LAYER].float()

    def _statistics(self, picture: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
        parts = tiles(picture.shape[2:], tile, margin=self.margin, multiple=SCALE)
        if len(parts) == 1:
            return mean_std(self._features(picture))

        def own(part: Tile) -> Tensor:
            return part.own(self._features(part.seen(picture)), SCALE)

        return merged_mean_std(own(part) for part in parts)


def routed(router: Router, statistics: LayerStatistics) -> Routing:
    """The experts chosen by a picture's mean and standard deviation at ``LAYER``, [N, C, 1, 1] each."""
    return router(torch.cat(statistics, 1).flatten(1))


class AdaIN(AdversarialStyleFamily, PrunedFamily, StyleFamily):
    """Trains the decoder on pairs of a photograph and a style picture.

    Minimises content_weight * content + style_weight * style (eqs. 11 to 13): the features of the decoded picture
    against those it was decoded from, and their statistics against the style's at four layers. Learned style losses can
    be added: see ``AdversarialStyleFamily``; a classifier's classes are the style pictures of the batch, of all ranks.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        content_weight: of the content loss, a mean over features.
        style_weight: of the style loss, a sum over layers.
        layer_weights: of relu1_1, relu2_1, relu3_1 and relu4_1 in the style loss.
        style_mixing: an augmentation (after MixStyle, Zhou et al. 2021): statistics of two paintings of the batch are
            mixed, so that each ``channel`` is of one of them, or each ``layer``; ``none``: a style is one painting's.
        temporal_weight: of the temporal consistency, for video, which takes another pass through encoder and decoder.
        temporal: options of that loss.
        decoder: options of the decoder; ``decoder.experts`` are chosen by the statistics at relu4_1.
        pruned_from: a run with a wider decoder, whose heaviest channels this one begins with (``gesso prune``).
        optimizer: options of its optimizer.
        balance_weight: with experts, of the loss that keeps all of them at work; loads are counted over the pictures
            that all ranks work on at one time, a batch or ``micro_batches`` parts of one.
        options: those of ``AdversarialStyleFamily``, ``LearnedStyleFamily`` and ``ImageFamily``.

    Raises:
        ValueError: a weight below 0, or learned style losses with mixed styles.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("decoder", *AdversarialStyleFamily.learned_networks)
    widths: ClassVar[tuple[str, ...]] = ("decoder.width",)
    renamed_options: ClassVar[Renamed] = {
        "gradient_checkpointing": ("decoder.gradient_checkpointing",),
        "lr": ("optimizer.lr",),
    }

    def __init__(
        self,
        *,
        resolution: Count = 256,
        content_weight: NonNegative = 1.0,
        style_weight: NonNegative = 10.0,
        layer_weights: tuple[NonNegative, NonNegative, NonNegative, NonNegative] = (1.0, 1.0, 1.0, 1.0),
        style_mixing: StyleMixing = "none",
        temporal_weight: NonNegative = 0.0,
        temporal: TemporalOptions = TemporalOptions(),
        decoder: DecoderOptions = DecoderOptions(),
        pruned_from: str | None = None,
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4),
        balance_weight: NonNegative = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.weights = {
            "content": content_weight,
            "style": style_weight,
            "temporal": temporal_weight,
            "balance": balance_weight,
            **self.learned_weights,
        }
        check_weights(
            layer_weights=min(layer_weights), **{f"{name}_weight": weight for name, weight in self.weights.items()}
        )
        self.save_hyperparameters()
        self.resolution, self.optimizer = resolution, optimizer
        self.layer_weights = dict(zip(STYLE_LAYERS, layer_weights, strict=True))
        self.style_mixing, self.temporal, self.pruned_from = style_mixing, temporal, pruned_from
        self.experts, self.decoder = decoder.experts, Decoder(decoder)
        self._sees_statistics = any(self.learned_weights.values())
        if self._sees_statistics and style_mixing != "none":
            raise ValueError(
                f"style_mixing {style_mixing}: learned style losses know the styles of whole pictures: none"
            )
        self.build_judges(resolution)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"decoder": self.optimizer, **self.judges()}

    def generating_networks(self) -> tuple[str, ...]:
        return ("decoder",)

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("decoder", self.training_losses, batch)
        self.update_style_discriminator(batch)

    def training_losses(self, batch: Batch) -> Losses:
        """Like ``losses``, with the styles mixed as ``style_mixing`` says."""
        with torch.no_grad():
            style, numbers = self._style_statistics(batch)
            if self.style_mixing != "none":
                style = self._mixed(style)
        return self._losses(batch, style, numbers, training=True)

    def losses(self, batch: Batch) -> Losses:
        """Content and style loss, each unweighted and weighted."""
        with torch.no_grad():
            style, numbers = self._style_statistics(batch)
        return self._losses(batch, style, numbers)

    def _style_statistics(self, batch: Batch) -> tuple[Statistics, Tensor | None]:
        """Statistics by layer; and all in one, where a learned style loss wants them."""
        found = self.encoder(batch["style"], STYLE_LAYERS)
        numbers = feature_statistics(found) if self._sees_statistics else None
        return {name: mean_std(f) for name, f in found.items()}, numbers

    def _mixed(self, style: Statistics) -> Statistics:
        """Replaces some of each style's statistics by those of the next one; the share is random for each."""
        count = len(style[LAYER][0])
        part = self.rand(count, 1, 1, 1)
        mixed = {}
        for name, statistics in style.items():
            channels = statistics[0].shape[1] if self.style_mixing == "channel" else 1
            foreign = self.rand(count, channels, 1, 1) < part
            mixed[name] = tuple(torch.where(foreign, value.roll(1, 0), value) for value in statistics)
        return mixed  # type: ignore[return-value]

    def _losses(self, batch: Batch, style: Statistics, numbers: Tensor | None, *, training: bool = False) -> Losses:
        images = batch["image"]
        target, routing = self._target(images, style)
        pictures = self.decoder(target, routing).float()
        decoded = self.encoder(pictures, STYLE_LAYERS)
        by_layer = [
            weight * statistics_loss(decoded[name], *style[name]) for name, weight in self.layer_weights.items()
        ]
        terms = {"content": content_loss(decoded[LAYER], target), "style": torch.stack(by_layer).sum()}
        if self.weights["temporal"]:
            terms["temporal"] = self.temporal_loss(
                images, pictures, lambda moved: self.decoder(*self._target(moved, style))
            )
        if routing is not None:
            # Not so in validation, where ranks may have different numbers of batches.
            load = mean_over_ranks(routing.load()) if training else routing.load()
            terms["balance"] = load_balance_loss(routing.probabilities, load)
        if numbers is not None:
            terms |= self._learned_terms(pictures, decoded, batch["style"], numbers, training=training)
        return weighted_sum(terms, self.weights)

    def _learned_terms(
        self, pictures: Tensor, decoded: Mapping[str, Tensor], style: Tensor, numbers: Tensor, *, training: bool
    ) -> dict[str, Tensor]:
        """Learned style losses of results and their features, against style pictures and their statistics."""
        terms: dict[str, Tensor] = {}
        if self.has_codes:
            styles, own = self.styles_of_batch(self.style_head(numbers), training=training)
            terms = self.code_terms(self.style_head(feature_statistics(decoded)), styles, own)
        if training and self.style_adversarial_weight:
            terms |= self.adversarial_terms(pictures, numbers, style)
        return terms

    def _target(self, images: Tensor, style: Statistics) -> tuple[Tensor, Routing | None]:
        """The features that are to be decoded, and by which experts."""
        with torch.no_grad():
            features = self.encoder(images, (LAYER,))[LAYER]
            target = adain(features, *style[LAYER])
        if self.decoder.router is None:
            return target, None
        return target, routed(self.decoder.router, style[LAYER] if self.experts.gate == "style" else mean_std(features))

    def deployable_parts(self) -> tuple[str, ...]:
        return ("stylizer",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: a picture, a style picture and alpha to the stylised picture."""
        self.known_part(part)
        encoder, decoder = folded(self.encoder.up_to(LAYER)), folded(self.decoder)

        def picture(content: Tensor, style: Tensor, alpha: Tensor) -> Tensor:
            features, target = (encoder(each, (LAYER,))[LAYER] for each in (content, style))
            drawn = torch.lerp(features, adain(features, *mean_std(target)), alpha)
            routing = None
            if decoder.router is not None:
                routing = routed(decoder.router, mean_std(features))
                if self.experts.gate == "style":
                    routing = mixed([(alpha, routed(decoder.router, mean_std(target))), (1 - alpha, routing)])
            return decoder(drawn, routing)[:, :, : content.shape[2], : content.shape[3]].clamp(-1, 1)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            # Every third one half in the style.
            return {**pictures, "alpha": torch.tensor([0.5 if int(index[0]) % 3 == 1 else 1.0])}

        def run(inputs: Inputs) -> Tensor:
            return self.stylize(inputs["content"], Style([inputs["style"]], alpha=float(inputs["alpha"])))

        return Deployable(
            Named(picture, encoder=encoder, decoder=decoder),
            {
                **self.picture_ports(layout),
                "alpha": Port(torch.ones(1), "from 0 (the content) to 1 (all of the style), float32 [1]"),
            },
            "picture",
            f"the stylised picture, {PICTURE}",
            draw,
            run,
        )

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        return AdaINTransfer(self.encoder, self.decoder, self.experts).stylize(content, style, tile=tile)
