"""Arbitrary style transfer by transformers (StyTr2, Deng et al. 2022, arXiv:2105.14576)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.deployment import Deployable, Layout, Named
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style, drawn_by_alpha, resize_shares
from lightning_modules.kinds.stylizing import StyleFamily, weighted_sum
from lightning_modules.losses.transfer import LAYERS, transfer_terms
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.folding import folded
from lightning_modules.networks.padding import to_multiple
from lightning_modules.networks.stytr2 import PATCH, StyTr2Network, StyTr2Options
from lightning_modules.pictures.tiles import tiles

#: Pixels around a place on which what the decoder makes of tokens depends.
MARGIN = 32
#: The paper's: 80,000 images of warm-up, and at its end, after 1,280,000, 0.4 of the highest learning rate.
OPTIMIZER = OptimizerOptions(lr=2e-4, warmup_kimg=80.0, schedule="linear", decay_kimg=1280.0, final_lr=8e-5)


class StyTr2(StyleFamily):
    """Trains a transformer on pairs of a photograph and a style picture.

    Minimises content_weight * content + style_weight * style + identity_weight * identity + identity_feature_weight *
    identity_features (eqs. 7 to 10, the weights of the authors' code): normalised features of the picture against the
    photograph's at relu4_1 and relu5_1; its features' statistics against the style's at five layers; and a picture in
    its own style against itself, photographs and style pictures alike, as pixels in [0, 1] and as features.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        content_weight: of the content loss, a sum over two layers.
        style_weight: of the style loss, a sum over five layers.
        identity_weight: of the difference in pixels, a sum over photographs' and style pictures' means.
        identity_feature_weight: of the difference in features, a sum over both and five layers.
        network: options of the network.
        optimizer: options of its optimizer. The authors' warm-up begins with a quarter of the highest learning rate,
            which then falls like 1 / t to where this one goes linearly.
        channels_last: slower here: half of the network works on tokens.
        options: those of ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        resolution: Count = 256,
        content_weight: NonNegative = 7.0,
        style_weight: NonNegative = 10.0,
        identity_weight: NonNegative = 70.0,
        identity_feature_weight: NonNegative = 1.0,
        network: StyTr2Options = StyTr2Options(),
        optimizer: OptimizerOptions = OPTIMIZER,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(channels_last=channels_last, **options)
        self.weights = {
            "content": content_weight,
            "style": style_weight,
            "identity": identity_weight,
            "identity_features": identity_feature_weight,
        }
        check_weights(
            content_weight=content_weight,
            style_weight=style_weight,
            identity_weight=identity_weight,
            identity_feature_weight=identity_feature_weight,
        )
        self.save_hyperparameters()
        self.resolution, self.optimizer = resolution, optimizer
        self.network = StyTr2Network(network)

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
        originals = torch.cat([batch["image"], batch["style"]])
        count = len(batch["image"])
        numbers = torch.arange(2 * count, device=originals.device)
        # Photographs in the styles, and every picture in its own.
        stylized = torch.stack([numbers[:count], numbers[count:]], 1)
        pairs = torch.cat([stylized, numbers[:, None].expand(-1, 2)])
        pictures = self.network(originals, originals, pairs).float()
        with torch.no_grad():
            wanted = self.encoder(originals, LAYERS)
        found = self.encoder(pictures, LAYERS)
        return weighted_sum(transfer_terms(pictures, found, originals, wanted), self.weights)

    def deployable_parts(self) -> tuple[str, ...]:
        return ("stylizer",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: a picture and a style picture to the stylised picture.

        Raises:
            ValueError: free sizes of a network whose attention is in windows.
        """
        self.known_part(part)
        if layout.dynamic and self.network.window:
            raise ValueError("a StyTr2 with windows is exported with fixed sizes: leave out --dynamic")
        network = folded(self.network)

        def picture(content: Tensor, style: Tensor) -> Tensor:
            return network(content, style).clamp(-1, 1)

        return self.deployable_pair(Named(picture, network=network), layout, multiple=PATCH)

    @torch.no_grad()
    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``.

        Several styles are mixed as tokens after the transfer, and by ``alpha`` the style and the content's own.
        Attention is always over the whole picture, and its time grows with the square of the number of pixels; what
        goes by tiles is the decoder, which needs most of the memory.
        """
        network = self.network
        tokens, positions, size = network.encode_content(content)
        share = style.shares(content, len(style.pictures))
        share = resize_shares(to_multiple(share[None], PATCH)[0] if share.shape[1:] != (1, 1) else share, size)

        def transferred(of_style: Tensor) -> Tensor:
            return network.transferred(tokens, positions, of_style, size).float()

        found = style.of_each(lambda number, picture: network.encode_style(picture))
        features = sum(
            (place * transferred(each) for place, each in zip(share, found, strict=True)), content.new_zeros(())
        )
        return drawn_by_alpha(
            content,
            style.alpha,
            features,
            lambda: transferred(network.encode_style(content)),
            lambda each: self._decoded(each, content, tile),
        )

    def _decoded(self, features: Tensor, content: Tensor, tile: int | None) -> Tensor:
        """The picture of tokens [1, D, h, w], of the content's size."""
        picture = torch.empty_like(content)
        for part in tiles(content.shape[2:], tile, margin=MARGIN, multiple=PATCH):
            part.put(self.network.decoder(part.seen(features, PATCH)).float(), picture)
        return picture
