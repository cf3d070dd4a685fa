"""The loss of Gatys, Ecker and Bethge (2016) as a function of the pixels, whole or tile by tile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.kinds.stylizer import resize_shares
from lightning_modules.losses.perceptual import total_variation
from lightning_modules.losses.style import weighted_gram
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.tiles import Tile, tiles

#: Layers of the paper, and by how much their maps are smaller than the picture.
CONTENT_LAYER = "relu4_2"
STYLE_LAYERS = {"relu1_1": 1, "relu2_1": 2, "relu3_1": 4, "relu4_1": 8, "relu5_1": 16}
SCALES = {**STYLE_LAYERS, CONTENT_LAYER: 8}
#: Pixels around a place of relu5_1 on which its value depends.
MARGIN = 96

#: Sums over a picture's tiles: by style layer the Gram matrices [K, C, C], and the content's squared distance.
Sums = dict[str, Tensor]


class PictureLoss:
    """content_weight * content + style_weight * style + tv_weight * tv of a picture; constant parts are computed once.

    Content's distance and Gram matrices are sums over places, so a picture's can be summed over its tiles. Then the
    loss is known, and its derivative by each sum, with which every tile can be differentiated by itself: the same
    gradient for a second forward pass, in memory that does not grow with the picture.

    Args:
        encoder: VGG19; whatever its dtype, sums and losses are fp32.
        content: [1, 3, H, W] in [-1, 1].
        styles: [1, 3, H', W'] in [-1, 1] each.
        share: how much of each style each place gets: ``Style.shares``, of any size.
        content_weight: of the mean squared difference of features at relu4_2.
        style_weight: of the mean squared differences of Gram matrices, averaged over the five layers of the paper.
        tv_weight: of the total variation.
        tile: pixels to a tile's side; None: the whole picture at once.
    """

    def __init__(
        self,
        encoder: VGG19,
        content: Tensor,
        styles: Sequence[Tensor],
        share: Tensor,
        *,
        content_weight: float,
        style_weight: float,
        tv_weight: float,
        tile: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.tiles = tiles(content.shape[2:], tile, margin=MARGIN, multiple=16)
        with torch.no_grad():
            grams = [self._grams(style, tile) for style in styles]
            self.grams = {name: torch.cat([gram[name] for gram in grams]) for name in STYLE_LAYERS}
            if share.shape[1:] == (1, 1):
                # The same mixture everywhere has one target, the mean of the styles', instead of one for each.
                self.grams = {name: (share * gram).sum(0, keepdim=True) for name, gram in self.grams.items()}
                share = torch.ones_like(share[:1])
            self.places = {name: places(share, content, scale) for name, scale in STYLE_LAYERS.items()}
            self.contents = [
                part.own(self.encoder(part.seen(content), (CONTENT_LAYER,))[CONTENT_LAYER], SCALES[CONTENT_LAYER])
                for part in self.tiles
            ]
        self.entries = sum(features.numel() for features in self.contents)

    def with_gradient(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a picture [1, 3, H, W], and its gradient of that shape, contiguous."""
        pixels = picture.detach().requires_grad_()
        smooth = self.tv_weight * total_variation(pixels)
        if len(self.tiles) == 1:
            loss = self._total(self._sums(pixels, 0)) + smooth
            (gradient,) = torch.autograd.grad(loss, pixels)
            return loss.detach(), gradient.contiguous()
        (gradient,) = torch.autograd.grad(smooth, pixels)
        gradient = gradient.contiguous()
        sums = self._summed(picture)
        total = self._total({name: value.requires_grad_() for name, value in sums.items()})
        slopes = torch.autograd.grad(total, list(sums.values()))
        for number, part in enumerate(self.tiles):
            seen = part.seen(picture).detach().requires_grad_()
            (own,) = torch.autograd.grad(list(self._sums(seen, number).values()), seen, slopes)
            part.seen(gradient).add_(own)
        return (total + smooth).detach(), gradient

    @torch.no_grad()
    def _summed(self, picture: Tensor) -> Sums:
        sums = self._sums(self.tiles[0].seen(picture), 0)
        for number, part in enumerate(self.tiles[1:], 1):
            for name, value in self._sums(part.seen(picture), number).items():
                sums[name] += value
        return sums

    def _sums(self, seen: Tensor, number: int) -> Sums:
        """The part of the sums of tile ``number``, with these pixels."""
        part = self.tiles[number]
        features = self.encoder(seen, tuple(SCALES))
        own = {name: part.own(features[name], scale) for name, scale in SCALES.items()}
        sums: Sums = {}
        for name, scale in STYLE_LAYERS.items():
            here = self.places[name]
            here = here if here.shape[1:] == (1, 1) else _own_of_map(part, here, scale)
            sums[name] = torch.cat([weighted_gram(own[name], place) for place in here])
        sums["content"] = (own[CONTENT_LAYER].float() - self.contents[number].float()).square().sum()
        return sums

    def _total(self, sums: Sums) -> Tensor:
        # Each style's Gram matrices count fully where masks part them, so that a small region is styled as a large one.
        style = torch.stack([(sums[name] - self.grams[name]).square().mean((1, 2)).sum() for name in STYLE_LAYERS])
        return self.content_weight * sums["content"] / self.entries + self.style_weight * style.mean()

    def _grams(self, style: Tensor, tile: int | None) -> Sums:
        sums: Sums = {}
        everywhere = torch.ones(1, 1, 1, device=style.device)
        weights = {name: places(everywhere, style, scale)[0] for name, scale in STYLE_LAYERS.items()}
        for part in tiles(style.shape[2:], tile, margin=MARGIN, multiple=16):
            features = self.encoder(part.seen(style), tuple(STYLE_LAYERS))
            for name, scale in STYLE_LAYERS.items():
                gram = weighted_gram(part.own(features[name], scale), weights[name])
                sums[name] = sums[name] + gram if name in sums else gram
        return sums


def places(share: Tensor, picture: Tensor, scale: int) -> Tensor:
    """Weights of a map's places for each style, with sums of 1 (0 for one without a place): [K, h, w] or [K, 1, 1]."""
    height, width = (-(-side // scale) for side in picture.shape[2:])
    if share.shape[1:] == (1, 1):
        return torch.full_like(share, 1 / (height * width))
    resized = resize_shares(share, (height, width))
    return resized / resized.sum((1, 2), keepdim=True).clamp_min(1e-6)


def _own_of_map(part: Tile, whole: Tensor, scale: int) -> Tensor:
    return part.own(part.seen(whole, scale), scale)
