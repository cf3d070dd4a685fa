"""Photographs in the light and colours of others: WCT2 (Yoo et al. 2019, arXiv:1903.09760)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative, Positive
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style, resize_shares
from lightning_modules.kinds.stylizing import StyleFamily, weighted_sum
from lightning_modules.losses.perceptual import relative_feature_loss
from lightning_modules.losses.weights import check_weights
from lightning_modules.losses.whitening import AffineMap, Moments, map_regions_, region_moments, symmetric_transfer
from lightning_modules.networks.haar import haar_pool
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.wct2 import LEVELS, MARGIN, WaveletDecoder, WaveletDecoderOptions, WaveletEncoder
from lightning_modules.pictures.tiles import Tile, by_tiles, tiles

#: Where features get the style's statistics.
TransferAt = Literal["encoder", "skip", "decoder"]
EVERYWHERE: tuple[TransferAt, ...] = ("encoder", "skip", "decoder")

#: Moments by place in the networks, such as ``encoder1``, ``skip2.0`` or ``decoder3``; of each region.
Statistics = dict[str, list[Moments]]


@dataclass(frozen=True)
class Target:
    """What the features of a picture are to have.

    Args:
        statistics: of the K styles, by place: one list for each place.
        alpha: from 0 (the features stay) to 1.
        counted: how much each place counts in the content's moments of each region: [K, H, W], or [K, 1, 1].
    """

    statistics: Statistics
    alpha: float
    counted: Tensor


class WCT2Transfer:
    """A ``Stylizer`` of one pass through a decoder that was trained to reconstruct alone, for any style.

    Each level of the networks runs on the whole picture, tile by tile, and its maps are kept: tiles change nothing but
    last digits.

    Args:
        encoder: VGG19 with Haar pooling.
        decoder: a trained decoder.
        transfer_at: where features are transformed.
        epsilon: share of the content's mean variance that is added to it before it is whitened: more is safer, where
            the content has next to no variance, and less of the style.
    """

    def __init__(
        self,
        encoder: WaveletEncoder,
        decoder: WaveletDecoder,
        *,
        transfer_at: Sequence[TransferAt] = EVERYWHERE,
        epsilon: float = 1e-3,
    ) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.transfer_at, self.epsilon = frozenset(transfer_at), epsilon

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``. ``alpha`` mixes features at each place, and keeps as much of what decoding loses."""
        share = style.shares(content, len(style.pictures), by_region=True)
        found = style.of_each(lambda number, picture: self._statistics(picture, style.region(number), tile), tile)
        counted = share * style.cover(content, len(style.pictures))
        target = Target({place: [each[place][0] for each in found] for place in found[0]}, style.alpha, counted)
        picture = self.walk(content, share, tile, target)[1]
        if style.alpha < 1:
            kept = content - self.walk(content, share, tile)[1]
            picture += (1 - style.alpha) * kept
        return picture.clamp_(-1, 1)

    def _statistics(self, picture: Tensor, region: Tensor, tile: int | None) -> Statistics:
        """Those of a style picture, where its region [1, H, W] (or [1, 1, 1]) is white."""
        return self.walk(picture, region, tile, decode=False)[0]

    def walk(
        self, picture: Tensor, share: Tensor, tile: int | None, target: Target | None = None, *, decode: bool = True
    ) -> tuple[Statistics, Tensor]:
        """Runs the networks, and gives features the target's statistics on the way.

        Args:
            picture: [1, 3, H, W] in [-1, 1].
            share: of K regions at each place, [K, H, W], or [K, 1, 1].
            tile: side of the squares in pixels; None: the whole picture.
            target: what to transform to; None: the features stay.
            decode: whether the last level is wanted.

        Returns:
            Each place's moments of the K regions, before the transform; and the picture [1, 3, H, W], not bound to
            [-1, 1] (of ``decode``; else the last features).
        """
        found: Statistics = {}
        x, skips, scale = picture, list[Tensor](), 1
        counted = share if target is None else target.counted
        for level in LEVELS:
            side = None if tile is None else -(-tile // scale)
            pools = self.encoder.pools(level)
            x, *skipped = self._encoded(level, x, side)
            for skip in skipped:
                if "skip" in self.transfer_at:
                    for number, moments in enumerate(_detail_moments(skip, counted, side)):
                        found[f"skip{len(skips) + 1}.{number}"] = moments
                skips.append(skip)
            scale *= 2 if pools else 1
            if "encoder" in self.transfer_at:
                self._transform_(f"encoder{level}", x, share, found, target)
        for level in reversed(LEVELS):
            if "decoder" in self.transfer_at and (level < LEVELS[-1] or "encoder" not in self.transfer_at):
                self._transform_(f"decoder{level}", x, share, found, target)
            if level > 1:
                scale //= 2
                side = None if tile is None else -(-tile // scale)
                maps = [self._maps(f"skip{level - 1}.{number}", found, target) for number in range(3)]
                x = self._decoded(level, x, skips.pop(), maps, share, side)
        return found, self._picture(x, tile) if decode else x

    def _encoded(self, level: int, x: Tensor, side: int | None) -> list[Tensor]:
        """A level's output, and its map before pooling if it pools."""
        parts = tiles(x.shape[2:], side, margin=MARGIN, multiple=2)
        pools = self.encoder.pools(level)

        def run(part: Tile) -> list[Tensor]:
            output, skip = self.encoder.level(level, part.seen(x))
            return [output] if skip is None else [output, skip]

        return by_tiles(run, parts, x.shape[2:], (2, 1) if pools else (1,))

    def _decoded(
        self,
        level: int,
        x: Tensor,
        skip: Tensor,
        maps: Sequence[Sequence[AffineMap]],
        share: Tensor,
        side: int | None,
    ) -> Tensor:
        size = skip.shape[2:]
        share = resize_shares(share, (x.shape[2], x.shape[3]))

        def run(part: Tile) -> list[Tensor]:
            here = share if share.shape[1:] == (1, 1) else part.seen(share, 2)
            own_skip = part.seen(skip)
            details = haar_pool(own_skip)[1:]
            for detail, of_regions in zip(details, maps, strict=True):
                if of_regions:
                    map_regions_(detail, of_regions, here)
            return [self.decoder.level(level, part.seen(x, 2), own_skip, details)]

        return by_tiles(run, tiles(size, side, margin=MARGIN, multiple=2), size, (1,))[0]

    def _picture(self, x: Tensor, side: int | None) -> Tensor:
        size = x.shape[2:]
        parts = tiles(size, side, margin=MARGIN, multiple=2)
        return by_tiles(lambda part: [in_full_precision(self.decoder.picture(part.seen(x)))], parts, size, (1,))[0]

    def _transform_(self, place: str, x: Tensor, share: Tensor, found: Statistics, target: Target | None) -> None:
        size = (x.shape[2], x.shape[3])
        share = resize_shares(share, size)
        found[place] = region_moments(x, share if target is None else resize_shares(target.counted, size))
        if maps := self._maps(place, found, target):
            map_regions_(x, maps, share)

    def _maps(self, place: str, found: Statistics, target: Target | None) -> list[AffineMap]:
        """The transform of each region; none if nothing is to change here."""
        if target is None or place not in found:
            return []
        pairs = zip(found[place], target.statistics[place], strict=True)
        return [symmetric_transfer(*pair, epsilon=self.epsilon).blended(target.alpha) for pair in pairs]


def _detail_moments(skip: Tensor, share: Tensor, side: int | None) -> list[list[Moments]]:
    """The moments of LH, HL and HH of a map, each of the regions; tile by tile."""
    height, width = skip.shape[2:]
    share = resize_shares(share, (-(-height // 2), -(-width // 2)))
    sums: list[list[Moments]] = []
    for part in tiles((height, width), side, margin=0, multiple=2):
        here = share if share.shape[1:] == (1, 1) else part.seen(share, 2)
        new = [region_moments(detail, here) for detail in haar_pool(part.seen(skip))[1:]]
        sums = [[a + b for a, b in zip(*both, strict=True)] for both in zip(sums, new, strict=True)] if sums else new
    return sums


class WCT2(StyleFamily):
    """Trains the decoder to give pictures back; style comes in afterwards alone, by whitening and colouring.

    Minimises pixel_weight * pixel + feature_weight * feature, over contents and styles alike.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        pixel_weight: of the mean squared difference of pixels in [0, 1].
        feature_weight: of the squared difference of the encoder's four levels, as a share of what they are.
        transfer_at: where features are transformed: ``encoder``, ``skip`` (details) and ``decoder``.
        epsilon: see ``WCT2Transfer``.
        decoder: options of the decoder.
        optimizer: options of its optimizer.
        options: those of ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("decoder",)
    # Between levels whole maps are kept: 4K takes 8 GiB, with tiles of 1024 it would be 10.
    tile_side: ClassVar[int] = 512

    def __init__(
        self,
        *,
        resolution: Count = 256,
        pixel_weight: NonNegative = 10.0,
        feature_weight: NonNegative = 1.0,
        transfer_at: tuple[TransferAt, ...] = EVERYWHERE,
        epsilon: Positive = 1e-3,
        decoder: WaveletDecoderOptions = WaveletDecoderOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(pixel_weight=pixel_weight, feature_weight=feature_weight)
        if not transfer_at:
            raise ValueError("transfer_at is empty: name one of encoder, skip and decoder")
        self.save_hyperparameters()
        self.resolution, self.optimizer = resolution, optimizer
        self.weights = {"pixel": pixel_weight, "feature": feature_weight}
        self.transfer_at, self.epsilon = transfer_at, epsilon
        self.decoder = WaveletDecoder(decoder)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"decoder": self.optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("decoder",)

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("decoder", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        """Both terms, each unweighted and weighted."""
        images = torch.cat([batch["image"], batch["style"]])
        encoder = self.wavelet_encoder()
        with torch.no_grad():
            levels, skips = encoder(images)
        made = self.decoder(levels[-1], skips).float()
        found, _ = encoder(made)
        by_level = [relative_feature_loss(ours, target) for ours, target in zip(found, levels, strict=True)]
        terms = {"pixel": F.mse_loss(made, images) / 4, "feature": torch.stack(by_level).mean()}
        return weighted_sum(terms, self.weights)

    def wavelet_encoder(self) -> WaveletEncoder:
        """VGG19 with Haar pooling, whose levels are the decoder's."""
        return WaveletEncoder(self.encoder, self.decoder.unpooling)

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        method = WCT2Transfer(self.wavelet_encoder(), self.decoder, transfer_at=self.transfer_at, epsilon=self.epsilon)
        return method.stylize(content, style, tile=tile)
