"""Fast style transfer: a network trained for a few styles (Johnson et al. 2016, Dumoulin et al. 2017)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lightning_modules.base import Batch, Losses
from lightning_modules.losses.perceptual import content_loss, total_variation
from lightning_modules.losses.style import gram, relative_gram_loss
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.fast_style import MARGIN, SCALE, FastStyleNetwork, Kind
from lightning_modules.networks.instance_norm import ConditionalInstanceNorm
from lightning_modules.pictures import fit
from lightning_modules.style_family import StyleFamily, weighted_sum
from lightning_modules.stylize import Style
from lightning_modules.tiles import Tile, merged_mean_std, tiles

CONTENT_LAYER = "relu3_1"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
#: Pixels by which, and noise with which, the temporal loss moves a picture.
SHIFT, NOISE = 8, 0.02


class FastStyle(StyleFamily):
    """Trains one network for one or several style pictures, on a stream of photographs.

    Minimises content_weight * content + style_weight * style + tv_weight * tv + temporal_weight * temporal. Several
    styles share all weights but those of the norms, and can be mixed afterwards, everywhere or place by place.

    Args:
        styles: files of the style pictures.
        resolution: height and width of the photographs in training, in pixels; any size afterwards.
        style_size: the styles' longer side in pixels: with a smaller one, strokes are finer.
        network: ``johnson``, or ``light`` for phones and video.
        content_weight: of the mean squared difference of features at relu3_1.
        style_weight: of the relative difference of Gram matrices, averaged over four layers.
        layer_weights: of relu1_1, relu2_1, relu3_1 and relu4_1 in the style loss; with 0 for the last one a step takes
            half as long, and textures are smaller.
        tv_weight: of the total variation.
        temporal_weight: of the temporal consistency, for video: a picture moved by a few pixels, with a little noise,
            must come out moved alike (Wang et al. 2020, "Consistent Video Style Transfer via Compound Regularization").
        lr: Adam's learning rate.
        gradient_checkpointing: recompute the network's activations in the backward pass.
        channels_last: slower here: the maps are thin, and normalised one by one.
        options: those of ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        styles: Sequence[str] = (),
        resolution: int = 256,
        style_size: int = 256,
        network: Kind = "johnson",
        content_weight: float = 1.0,
        style_weight: float = 10.0,
        layer_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        tv_weight: float = 0.1,
        temporal_weight: float = 0.0,
        lr: float = 2e-4,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(channels_last=channels_last, **options)
        if resolution <= 2 * SHIFT or style_size < 16:
            raise ValueError(f"resolution must be more than {2 * SHIFT} pixels, and style_size 16 or more")
        self.weights = {"content": content_weight, "style": style_weight, "tv": tv_weight, "temporal": temporal_weight}
        check_weights(**{f"{name}_weight": weight for name, weight in self.weights.items()})
        # A checkpoint names its paintings wherever it is used.
        styles = [os.path.abspath(file) for file in styles]
        self.save_hyperparameters()
        self.layer_weights = dict(zip(STYLE_LAYERS, layer_weights, strict=True))
        self.style_size = style_size
        count = max(1, len(styles))
        self.network = FastStyleNetwork(styles=count, kind=network, gradient_checkpointing=gradient_checkpointing)
        self._pictures: list[Tensor] = []
        self._grams: dict[str, Tensor] = {}

    @property
    def own_styles(self) -> tuple[str, ...]:
        return tuple(Path(file).stem for file in self.hparams["styles"])

    def style_files(self) -> tuple[str, ...]:
        return tuple(self.hparams["styles"])

    def take_styles(self, pictures: Sequence[Tensor]) -> None:
        if not pictures:
            raise ValueError("FastStyle needs a style picture: set --model.init_args.styles '[FILE, ...]'")
        self._pictures = [fit(picture, self.style_size) for picture in pictures]

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), self.hparams["lr"], fused=True)}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step(self, batch: Batch) -> None:
        self.update("network", self.training_losses, batch)

    def training_losses(self, batch: Batch) -> Losses:
        """Each photograph is put into a style that is drawn for it."""
        count = len(self.own_styles)
        drawn = (self.rand(len(batch["image"])) * count).long().clamp_max(count - 1)
        return self._losses(batch["image"], drawn)

    def losses(self, batch: Batch) -> Losses:
        """All terms, each as it is and weighted; the styles are taken in turn."""
        turns = torch.arange(len(batch["image"]), device=self.device)
        return self._losses(batch["image"], turns % len(self.own_styles))

    def _losses(self, images: Tensor, styles: Tensor) -> Losses:
        encoder = self.encoder
        mix = F.one_hot(styles, len(self.own_styles)).float()[:, :, None, None]
        pictures = self.network(images, mix)
        with torch.no_grad():
            content = encoder(images, (CONTENT_LAYER,))[CONTENT_LAYER]
        # No deeper than a weight asks for.
        layers = {name: weight for name, weight in self.layer_weights.items() if weight}
        found = encoder(pictures, (*layers, CONTENT_LAYER))
        targets = self.style_grams()
        by_layer = [weight * relative_gram_loss(found[name], targets[name][styles]) for name, weight in layers.items()]
        terms = {
            "content": content_loss(found[CONTENT_LAYER], content),
            "style": sum(by_layer, pictures.new_zeros(())) / len(STYLE_LAYERS),
            "tv": total_variation(pictures),
        }
        if self.weights["temporal"]:
            terms["temporal"] = self._temporal_loss(images, pictures, mix)
        return weighted_sum(terms, self.weights)

    def _temporal_loss(self, images: Tensor, pictures: Tensor, mix: Tensor) -> Tensor:
        down, right = self.randint(2, 2 * SHIFT + 1)
        side = images.shape[2] - 2 * SHIFT

        def window(x: Tensor) -> Tensor:
            return x[..., down : down + side, right : right + side]

        moved = self.network(window(images) + NOISE * self.randn(*images.shape[:2], side, side), mix)
        return F.mse_loss(moved.float(), window(pictures).float())

    @torch.no_grad()
    def style_grams(self) -> dict[str, Tensor]:
        """The styles' Gram matrices by layer, [K, C, C]; computed once, in fp32."""
        if not self._grams:
            if not self._pictures:
                raise RuntimeError("FastStyle has no style pictures yet: take_styles comes first")
            with torch.autocast(self.device.type, enabled=False):
                found = [self.encoder(picture.to(self.device), STYLE_LAYERS) for picture in self._pictures]
            self._grams = {name: torch.cat([gram(features[name]) for features in found]) for name in STYLE_LAYERS}
        return self._grams

    def styles_of(self, batch: Batch) -> list[tuple[Tensor, Style]]:
        numbers = range(len(self._pictures))
        alone = [Style(weights=[float(number == other) for other in numbers]) for number in numbers]
        return [(picture.to(self.device), style) for picture, style in zip(self._pictures, alone, strict=True)]

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``: ``style`` has no pictures, and weights and masks are those of the network's own styles.

        ``alpha`` mixes the pixels: what the network draws lies over the content's own edges.
        """
        if style.pictures:
            raise ValueError(
                f"this network draws in styles of its own ({', '.join(self.own_styles)}): "
                "leave out the style pictures, and mix these by weights"
            )
        mix = style.shares(content, len(self.own_styles))[None].to(content)
        parts = tiles(content.shape[2:], tile, margin=MARGIN, multiple=SCALE)

        def run(part: Tile) -> Tensor:
            return self.network(part.seen(content), mix if mix.shape[2:] == (1, 1) else part.seen(mix))

        picture = torch.empty_like(content)
        with whole_statistics(self.network, run, parts):
            for part in parts:
                part.put(run(part), picture)
        return content + style.alpha * (picture - content)


@contextmanager
def whole_statistics(network: nn.Module, run: Callable[[Tile], Tensor], parts: Sequence[Tile]) -> Iterator[None]:
    """Inside, each norm of ``network`` normalises a tile by the statistics of the whole picture.

    Those of a norm depend on all norms before it, so there is a pass over the tiles for each, up to that norm.

    Args:
        run: calls the network on a tile.
        parts: the picture's tiles; a single one has the statistics itself.
    """
    norms = [module for module in network.modules() if isinstance(module, ConditionalInstanceNorm)]
    try:
        for norm in norms if len(parts) > 1 else ():
            norm.given = merged_mean_std(_input_of(norm, run, part) for part in parts)
        yield
    finally:
        for norm in norms:
            norm.given = None


def _input_of(norm: nn.Module, run: Callable[[Tile], Tensor], part: Tile) -> Tensor:
    """The norm's input that the tile answers for; the network goes no further."""
    found: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _EnoughSeen

    handle = norm.register_forward_pre_hook(catch)
    try:
        run(part)
    except _EnoughSeen:
        pass
    finally:
        handle.remove()
    seen_height = part.seen_bottom - part.seen_top
    scale = next(scale for scale in (1, 2, 4) if -(-seen_height // scale) <= found[0].shape[2])
    return part.own(found[0], scale)


class _EnoughSeen(Exception):
    """Ends a forward pass."""
