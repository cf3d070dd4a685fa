"""Arbitrary style transfer for video by correlations of channels (MCCNet, Deng et al. 2021, arXiv:2009.08003)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.deployment import Deployable, Layout, Named
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style, drawn_by_alpha, resize_shares
from lightning_modules.kinds.stylizing import StyleFamily, weighted_sum
from lightning_modules.losses.perceptual import total_variation
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.losses.transfer import LAYERS, transfer_terms
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.folding import folded
from lightning_modules.networks.mccnet import MCCNetOptions, MCCNetwork, Statistics
from lightning_modules.pictures.tiles import Tile, merged_mean_std, tiles

#: The encoder's layer for the transfer, by how much its map is smaller than the picture, and the pixels around a place
#: on which its result depends: as in AdaIN.
LAYER, SCALE, MARGIN = "relu4_1", 8, 72
#: Standard deviations of the noise that stands for a change of light, in [-1, 1]: a uniform one for each picture.
NOISE = (0.02, 0.04)


class MCCNet(StyleFamily):
    """Trains the correlation of channels and a decoder on pairs of a photograph and a style picture.

    Minimises content_weight * content + style_weight * style + identity_weight * identity + identity_feature_weight *
    identity_features (see ``transfer_terms``) + illumination_weight * illumination + tv_weight * tv; the illumination
    loss is the mean squared difference, in [0, 1], of the picture and that of the photograph with a little noise.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        content_weight: of the content loss, a sum over two layers.
        style_weight: of the style loss, a sum over five layers.
        identity_weight: of the difference in pixels, a sum over photographs' and style pictures' means.
        identity_feature_weight: of the difference in features, a sum over both and five layers.
        illumination_weight: of the illumination loss.
        tv_weight: of the total variation, a mean. The authors' is 1e-4 of the sum over a GPU's four pictures of 256 px.
        temporal_weight: of the temporal consistency, which moves the photograph as well; the paper does without.
        temporal: options of that loss.
        network: options of the network.
        optimizer: options of its optimizer. The authors' learning rate falls like 1 / (1 + 5e-5 steps) to where this
            one goes linearly.
        options: those of ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        resolution: Count = 256,
        content_weight: NonNegative = 3.0,
        style_weight: NonNegative = 10.0,
        identity_weight: NonNegative = 70.0,
        identity_feature_weight: NonNegative = 1.0,
        illumination_weight: NonNegative = 3000.0,
        tv_weight: NonNegative = 40.0,
        temporal_weight: NonNegative = 0.0,
        temporal: TemporalOptions = TemporalOptions(),
        network: MCCNetOptions = MCCNetOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4, schedule="linear", decay_kimg=1280.0, final_lr=1.1e-5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.weights = {
            "content": content_weight,
            "style": style_weight,
            "identity": identity_weight,
            "identity_features": identity_feature_weight,
            "illumination": illumination_weight,
            "tv": tv_weight,
            "temporal": temporal_weight,
        }
        check_weights(
            content_weight=content_weight,
            style_weight=style_weight,
            identity_weight=identity_weight,
            identity_feature_weight=identity_feature_weight,
            illumination_weight=illumination_weight,
            tv_weight=tv_weight,
            temporal_weight=temporal_weight,
        )
        self.save_hyperparameters()
        self.resolution, self.optimizer, self.temporal = resolution, optimizer, temporal
        self.network = MCCNetwork(network)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"network": self.optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("network", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        """All terms, each unweighted and weighted."""
        images, count = batch["image"], len(batch["image"])
        originals = torch.cat([images, batch["style"]])
        with torch.no_grad():
            wanted = self.encoder(originals, LAYERS)
            noisy = self.encoder(self.noisy(images), (LAYER,))[LAYER]
        features = wanted[LAYER]
        numbers = torch.arange(count, device=images.device)
        # Photographs in the styles, every picture in its own, and noisy photographs in the styles.
        contents = torch.cat([numbers, numbers, numbers + count, numbers + 2 * count])
        styles = torch.cat([numbers + count, numbers, numbers + count, numbers + count])
        pictures = self.network(torch.cat([features, noisy]), features, torch.stack([contents, styles], 1)).float()
        pictures, shaken = pictures[: 3 * count], pictures[3 * count :]
        terms = transfer_terms(pictures, self.encoder(pictures, LAYERS), originals, wanted)
        terms["illumination"] = F.mse_loss(shaken, pictures[:count]) / 4
        terms["tv"] = total_variation(pictures[:count])
        if self.weights["temporal"]:
            terms["temporal"] = self.temporal_loss(
                images, pictures[:count], lambda moved: self._render(moved, features[count:])
            )
        return weighted_sum(terms, self.weights)

    def noisy(self, images: Tensor) -> Tensor:
        """The photographs [N, 3, H, W] with the illumination loss's noise."""
        low, high = NOISE
        return images + (low + (high - low) * self.rand(len(images), 1, 1, 1)) * self.randn(*images.shape)

    def _render(self, images: Tensor, style: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.encoder(images, (LAYER,))[LAYER]
        return self.network(features, style).float()

    def deployable_parts(self) -> tuple[str, ...]:
        return ("stylizer",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: a picture and a style picture to the stylised picture."""
        self.known_part(part)
        encoder, network = folded(self.encoder.up_to(LAYER)), folded(self.network)

        def picture(content: Tensor, style: Tensor) -> Tensor:
            features, target = (encoder(each, (LAYER,))[LAYER] for each in (content, style))
            return network(features, target)[:, :, : content.shape[2], : content.shape[3]].clamp(-1, 1)

        return self.deployable_pair(Named(picture, encoder=encoder, network=network), layout)

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``.

        Several styles are mixed as factors of channels, and by ``alpha`` the style's and the content's own.
        """
        height, width = content.shape[2:]
        share = style.shares(content, len(style.pictures))
        share = resize_shares(share, (-(-height // SCALE), -(-width // SCALE)))
        found = style.of_each(lambda number, picture: self._factors(picture, tile), tile)
        factors = sum((place * each for place, each in zip(share, found, strict=True)), content.new_zeros(()))
        return drawn_by_alpha(
            content,
            style.alpha,
            factors,
            lambda: self._factors(content, tile),
            lambda each: self._drawn(content, each, tile),
        )

    def _drawn(self, content: Tensor, factors: Tensor, tile: int | None) -> Tensor:
        """The content with its channels multiplied by factors [1, C, 1, 1] or [1, C, h, w]."""
        parts = self._parts(content, tile)
        statistics, picture = self._statistics(content, parts), torch.empty_like(content)
        for part in parts:
            here = factors if factors.shape[2:] == (1, 1) else part.seen(factors, SCALE)
            moved = self.network.transferred(self._features(part.seen(content)), here, statistics)
            part.put(self.network.decoder(moved).float(), picture)
        return picture

    def _factors(self, picture: Tensor, tile: int | None) -> Tensor:
        """What a picture's style multiplies channels by: [1, C, 1, 1]."""
        parts = self._parts(picture, tile)
        statistics = self._statistics(picture, parts)
        count, total = 0, picture.new_zeros(())
        for part in parts:
            features = part.own(self._features(part.seen(picture)), SCALE)
            count += features[0, 0].numel()
            total = total + features[0, 0].numel() * self.network.factors(features, statistics)
        return total / count

    def _parts(self, picture: Tensor, tile: int | None) -> Sequence[Tile]:
        return tiles(picture.shape[2:], tile, margin=MARGIN, multiple=SCALE)

    def _statistics(self, picture: Tensor, parts: Sequence[Tile]) -> Statistics | None:
        """Those of the whole picture, which only all of its tiles know; of a single one, None."""
        if len(parts) == 1:
            return None
        return merged_mean_std(part.own(self._features(part.seen(picture)), SCALE) for part in parts)

    def _features(self, picture: Tensor) -> Tensor:
        return self.encoder(picture, (LAYER,))[LAYER].float()
