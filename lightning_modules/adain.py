"""Arbitrary style transfer by adaptive instance normalisation (AdaIN, Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_modules.base import Batch, ImageFamily, Losses, Preview
from lightning_modules.losses.perceptual import content_loss
from lightning_modules.losses.style import adain, mean_std, statistics_loss
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.vgg import VGG19
from lightning_modules.stylize import resize_shares, shares

#: The encoder's layer that is restyled.
LAYER = "relu4_1"
#: The layers whose statistics make the style loss.
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class AdaINTransfer(nn.Module):
    """Encoder and decoder: any picture in any style, in one pass.

    Args:
        encoder: with real weights.
        decoder: a trained one.
    """

    def __init__(self, encoder: VGG19, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @torch.no_grad()
    def stylize(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        weights: Sequence[float] | None = None,
        masks: Tensor | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        """See ``Stylizer``. Several styles are mixed as features: T(c, s_1 ... s_K) = g(Σ w_k AdaIN(f(c), f(s_k)))."""
        share = shares(content, styles, weights, masks, alpha)
        features = self.encoder(content, (LAYER,))[LAYER]
        share = resize_shares(share, (features.shape[2], features.shape[3]))
        target = torch.zeros_like(features)
        for place, style in zip(share, styles, strict=True):
            target += place * adain(features, *mean_std(self.encoder(style, (LAYER,))[LAYER]))
        picture = self.decoder(alpha * target + (1 - alpha) * features)
        # The encoder rounds sides up to multiples of 8.
        return picture[:, :, : content.shape[2], : content.shape[3]].clamp(-1, 1)


class AdaIN(ImageFamily):
    """Trains the decoder on pairs of a photograph and a picture in whose style it is to come out.

    Minimises content_weight * content + style_weight * style (eqs. 11 to 13): the features of the decoded picture
    against those it was decoded from, and their statistics against the style's at four layers.

    Args:
        resolution: height and width of the images in training, in pixels; any size afterwards.
        channels: 3 (RGB).
        content_weight: of the content loss, a mean over features.
        style_weight: of the style loss, a sum over layers.
        lr: Adam's learning rate.
        gradient_checkpointing: recompute the decoder's activations in the backward pass.
        micro_batches, gradient_clip_norm, channels_last, compile: see ``ImageFamily``.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        content_weight: float = 1.0,
        style_weight: float = 10.0,
        lr: float = 1e-4,
        gradient_checkpointing: bool = False,
        micro_batches: int = 1,
        gradient_clip_norm: float | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__(
            micro_batches=micro_batches,
            gradient_clip_norm=gradient_clip_norm,
            channels_last=channels_last,
            compile=compile,
        )
        if channels != 3:
            raise ValueError(f"channels is {channels}; the encoder knows RGB pictures alone (3)")
        self.save_hyperparameters()
        self.content_weight, self.style_weight = content_weight, style_weight
        self.decoder = Decoder(gradient_checkpointing=gradient_checkpointing)
        # Frozen and published: neither trained, nor saved in every checkpoint. (In a list, torch does not see it.)
        self._encoders: list[VGG19] = []

    def published_weights(self) -> tuple[str, ...]:
        return ("vgg19_normalized",)

    def take_weights(self, name: str, file: Path) -> None:
        self._encoders = [VGG19(file).to(memory_format=self.memory_format)]

    @property
    def encoder(self) -> VGG19:
        """VGG19, on the module's device."""
        if not self._encoders:
            raise RuntimeError("AdaIN has no encoder yet: take_weights comes first")
        return self._encoders[0].to(self.device)

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        return {"decoder": Adam(self.decoder.parameters(), self.hparams["lr"], fused=True)}

    def generating_networks(self) -> tuple[str, ...]:
        return ("decoder",)

    def step(self, batch: Batch) -> None:
        self.update("decoder", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        """Content and style loss, as they are and weighted."""
        encoder = self.encoder
        with torch.no_grad():
            content = encoder(batch["image"], (LAYER,))[LAYER]
            style = {name: mean_std(f) for name, f in encoder(batch["style"], STYLE_LAYERS).items()}
            target = adain(content, *style[LAYER])
        decoded = encoder(self.decoder(target).float(), STYLE_LAYERS)
        content_term = content_loss(decoded[LAYER], target)
        style_term = torch.stack([statistics_loss(decoded[name], *style[name]) for name in STYLE_LAYERS]).sum()
        weighted = {"content": self.content_weight * content_term, "style": self.style_weight * style_term}
        return {
            "loss": weighted["content"] + weighted["style"],
            "content": content_term,
            "style": style_term,
            "content_weighted": weighted["content"],
            "style_weighted": weighted["style"],
        }

    def held_out_losses(self, batch: Batch) -> Losses:
        return self.losses(batch)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Four photographs (left) in six styles (on top)."""
        contents, styles = held_out["image"][:4], held_out["style"][:6]
        white = torch.ones_like(contents[:1])
        rows = [
            torch.cat([content, *(self.stylize(content, [style]) for style in styles.split(1))])
            for content in contents.split(1)
        ]
        return {"samples": Preview(torch.cat([white, styles, *rows]), columns=len(styles) + 1)}

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        weights: Sequence[float] | None = None,
        masks: Tensor | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        """See ``Stylizer``."""
        transfer = AdaINTransfer(self.encoder, self.decoder)
        return transfer.stylize(content, styles, weights=weights, masks=masks, alpha=alpha).float()
