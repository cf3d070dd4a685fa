"""Photographs in the colours of others, with nothing lost: CAP-VSTNet (Wen et al. 2023, arXiv:2303.17867)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative, Positive
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style, resize_shares
from lightning_modules.kinds.stylizing import StyleFamily, weighted_sum
from lightning_modules.losses.matting import matting_laplacian_loss
from lightning_modules.losses.perceptual import content_loss
from lightning_modules.losses.style import mean_std, statistics_loss
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.losses.weights import check_weights
from lightning_modules.losses.whitening import Moments, cholesky_transfer, map_regions_, region_moments
from lightning_modules.networks.cap_vst import ReversibleNetwork, ReversibleOptions

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu4_1"


class CAPVST(StyleFamily):
    """Trains a reversible network, between whose two directions features are whitened and coloured.

    Minimises style_weight * style + content_weight * content + laplacian_weight * laplacian + cycle_weight * cycle +
    temporal_weight * temporal: the statistics of the result's VGG features against the style's, features against the
    content's, the content's matting Laplacian (which keeps edges), the content against what comes back when the result
    gets its statistics again, and the next frame's result against the moved result.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        style_weight: of the style loss, a sum over four layers.
        content_weight: of the mean squared difference of features; for art (the paper: 1; 0 for photographs).
        laplacian_weight: of the matting Laplacian; for photographs (the paper: 1500; 0 for art).
        laplacian_gradient: to which the gradient of the weighted Laplacian is cut in each value of a picture.
        cycle_weight: of the mean absolute difference of the content and what comes back, in [0, 1].
        temporal_weight: of the temporal consistency, for video, which takes another pass (the paper: 60 at the end).
        temporal: options of that loss.
        network: options of the network.
        optimizer: options of its optimizer.
        gradient_clip_norm: see ``ImageFamily``.
        channels_last: slower here: halves and squares of maps are moved about.
        options: those of ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        resolution: Count = 256,
        style_weight: NonNegative = 1.0,
        content_weight: NonNegative = 0.0,
        laplacian_weight: NonNegative = 1500.0,
        laplacian_gradient: Positive = 0.05,
        cycle_weight: NonNegative = 10.0,
        temporal_weight: NonNegative = 0.0,
        temporal: TemporalOptions = TemporalOptions(),
        network: ReversibleOptions = ReversibleOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-4),
        gradient_clip_norm: Positive | None = 5.0,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(gradient_clip_norm=gradient_clip_norm, channels_last=channels_last, **options)
        self.weights = {
            "style": style_weight,
            "content": content_weight,
            "laplacian": laplacian_weight,
            "cycle": cycle_weight,
            "temporal": temporal_weight,
        }
        check_weights(**{f"{name}_weight": weight for name, weight in self.weights.items()})
        self.save_hyperparameters()
        self.resolution, self.optimizer, self.temporal = resolution, optimizer, temporal
        self.laplacian_gradient = laplacian_gradient
        self.network = ReversibleNetwork(network)

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
        """All terms with a weight, each unweighted and weighted."""
        images, encoder = batch["image"], self.encoder
        with torch.no_grad():
            style = {name: mean_std(f) for name, f in encoder(batch["style"], STYLE_LAYERS).items()}
        target = Moments.of(self.network(batch["style"]))
        made, content = self._in_style(images, target)
        found = encoder(made, STYLE_LAYERS)
        by_layer = [statistics_loss(found[name], *style[name]) for name in STYLE_LAYERS]
        terms = {"style": torch.stack(by_layer).sum()}
        if self.weights["content"]:
            with torch.no_grad():
                wanted = encoder(images, (CONTENT_LAYER,))[CONTENT_LAYER]
            terms["content"] = content_loss(found[CONTENT_LAYER], wanted)
        if weight := self.weights["laplacian"]:
            limit = self.laplacian_gradient / weight
            terms["laplacian"] = matting_laplacian_loss(made, images, gradient_limit=limit)
        if self.weights["cycle"]:
            terms["cycle"] = F.l1_loss(self._in_style(made, content)[0], images.float()) / 2
        if self.weights["temporal"]:
            terms["temporal"] = self.temporal_loss(images, made, lambda moved: self._in_style(moved, target)[0])
        return weighted_sum(terms, self.weights)

    def _in_style(self, images: Tensor, style: Moments) -> tuple[Tensor, Moments]:
        """Images [N, 3, H, W] with the moments of a style's features, and the moments of theirs."""
        features = self.network(images)
        content = Moments.of(features)
        mapped = cholesky_transfer(content, style)(features)
        return self.network.inverse(mapped, (images.shape[2], images.shape[3])), content

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``; exact in tiles, and the content itself for an ``alpha`` of 0."""
        share = style.shares(content, len(style.pictures), by_region=True)
        counted = share * style.cover(content, len(style.pictures))
        targets = style.of_each(lambda number, picture: self._moments(picture, style.region(number), tile), tile)
        features = self.network(content, tile)
        share, counted = (resize_shares(each, (features.shape[2], features.shape[3])) for each in (share, counted))
        pairs = zip(region_moments(features, counted), targets, strict=True)
        maps = [cholesky_transfer(*pair).blended(style.alpha) for pair in pairs]
        map_regions_(features, maps, share)
        size = (content.shape[2], content.shape[3])
        return self.network.inverse(features, size, tile).clamp(-1, 1).to(content.dtype)

    def _moments(self, picture: Tensor, region: Tensor, tile: int | None) -> Moments:
        """Those of a style picture's features, where its region [1, H, W] (or [1, 1, 1]) is white."""
        features = self.network(picture, tile)
        (found,) = region_moments(features, resize_shares(region, (features.shape[2], features.shape[3])))
        return found
