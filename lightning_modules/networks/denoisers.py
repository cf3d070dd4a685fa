"""The networks of diffusion models, by name, with one set of options for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Positive, Share
from lightning_modules.networks.dit import DiT, DiTOptions
from lightning_modules.networks.unet.adm import ADM, ADMOptions
from lightning_modules.networks.unet.edm2 import EDM2Options, EDM2UNet
from lightning_modules.networks.unet.song import SongOptions, SongUNet

Architecture = Literal["ddpmpp", "ncsnpp", "adm", "edm2", "dit"]
#: Architectures that embed the noise level by random frequencies: it must be a number of order 1. The others' sines
#: reach from 1 to 10,000.
FOURIER = ("ncsnpp", "edm2")


@dataclass(frozen=True)
class DenoiserOptions:
    """The network of a diffusion model. Null: the architecture's own, as its paper has it.

    Args:
        architecture: ``ddpmpp`` or ``ncsnpp`` (Song et al. 2021, as EDM has them), ``adm`` (Dhariwal and Nichol 2021),
            ``edm2`` (Karras et al. 2024, magnitude-preserving) or ``dit`` (Peebles and Xie 2023).
        width: channels at full resolution; of a DiT, of each token.
        multipliers: of the width at each resolution, each half of the one before.
        blocks: at each resolution.
        attention_resolutions: sides in pixels of the feature maps with self-attention.
        dropout: share of the features that are set to 0 in training.
        head_channels: channels of a head of the attention of ``adm`` and ``edm2``; narrow networks need fewer than 64.
        depth: blocks of a DiT.
        heads: of a DiT's attention.
        patch: side in pixels of the squares that become one token of a DiT, or one place of a U-Net's maps, with its
            pixels as channels (a U-Net's own: 1): cheaper, where neighbouring pixels are alike.
        norm: of a DiT.
        qk_norm: a DiT normalises queries and keys.
        rope: a DiT turns queries and keys by their place, instead of adding sines to the tokens.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    architecture: Architecture = "ddpmpp"
    width: Count | None = None
    multipliers: tuple[int, ...] | None = None
    blocks: Count | None = None
    attention_resolutions: tuple[int, ...] | None = None
    dropout: Share | None = None
    head_channels: Count | None = None
    depth: Count | None = None
    heads: Count | None = None
    patch: Count | None = None
    mlp_ratio: Positive | None = None
    norm: Literal["layer", "rms"] | None = None
    qk_norm: bool | None = None
    rope: bool | None = None
    gradient_checkpointing: bool = False

    @property
    def time_scale(self) -> float:
        """Factor of a time in [0, 1] for the architecture's embedding."""
        return 1.0 if self.architecture in FOURIER else 1000.0


def build_denoiser(
    options: DenoiserOptions,
    *,
    resolution: int,
    in_channels: int,
    out_channels: int,
    num_classes: int = 0,
    augment_dim: int = 0,
    uncertainty: bool = False,
) -> nn.Module:
    """A network F(x, noise, labels, augment) -> [N, out_channels, resolution, resolution].

    Args:
        options: see ``DenoiserOptions``.
        resolution: height and width of x [N, in_channels, resolution, resolution].
        in_channels, out_channels: of x, and of the answer.
        num_classes: the label ``num_classes`` stands for no class.
        augment_dim: length of the vector that describes an augmentation; 0: none.
        uncertainty: the network learns how uncertain it is at each noise level; ``edm2`` alone can.

    Raises:
        ValueError: an option that the architecture does not have, or a number that does not fit it.
    """
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    architecture = given.pop("architecture")
    if architecture != "dit" and (patch := given.pop("patch", 1)) > 1:
        if resolution % patch:
            raise ValueError(f"network.patch is {patch}; it must divide the resolution ({resolution})")
        inner = build_denoiser(
            dataclasses.replace(options, patch=None),
            resolution=resolution // patch,
            in_channels=in_channels * patch**2,
            out_channels=out_channels * patch**2,
            num_classes=num_classes,
            augment_dim=augment_dim,
            uncertainty=uncertainty,
        )
        return Patched(inner, patch)
    kind, own, preset = _KINDS[architecture]
    fields = {field.name for field in dataclasses.fields(own)}
    if unknown := sorted(given.keys() - fields):
        known = ", ".join(sorted(fields - {"architecture"}))
        raise ValueError(f"network.{unknown[0]}: the architecture {architecture} has no such option; it has {known}")
    if uncertainty and architecture != "edm2":
        raise ValueError(f"uncertainty is learned by the architecture edm2 alone, not by {architecture}")
    if architecture == "edm2":
        preset = {"logvar_channels": 128 if uncertainty else 0}
    if augment_dim and architecture in ("dit", "edm2"):
        raise ValueError(f"the architecture {architecture} is not told of augmentations: choose ddpmpp, ncsnpp or adm")
    more = {"augment_dim": augment_dim} if augment_dim else {}
    return kind(
        own(**{**preset, **given}),
        resolution=resolution,
        in_channels=in_channels,
        out_channels=out_channels,
        num_classes=num_classes,
        **more,
    )


def magnitude_preserving(network: nn.Module) -> EDM2UNet | None:
    """The network as EDM2's, whose weights are normalised and which knows its uncertainty; None: it is another."""
    inner = network.network if isinstance(network, Patched) else network
    return inner if isinstance(inner, EDM2UNet) else None


class Patched(nn.Module):
    """A network that sees squares of ``patch`` x ``patch`` pixels as the channels of one place."""

    def __init__(self, network: nn.Module, patch: int) -> None:
        super().__init__()
        self.network, self.patch = network, patch

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """As the network's own: images in, images out."""
        made: Tensor = self.network(F.pixel_unshuffle(x, self.patch), noise, labels, augment)
        return F.pixel_shuffle(made, self.patch)


#: Each architecture's class, the class of its options, and those of the options that make it.
_KINDS: dict[str, tuple[Callable[..., nn.Module], type, dict[str, object]]] = {
    "ddpmpp": (SongUNet, SongOptions, {"architecture": "ddpmpp"}),
    "ncsnpp": (SongUNet, SongOptions, {"architecture": "ncsnpp"}),
    "adm": (ADM, ADMOptions, {}),
    "edm2": (EDM2UNet, EDM2Options, {}),
    "dit": (DiT, DiTOptions, {}),
}
