"""AdaIN's decoder: from VGG19's relu4_1 back to a picture (Huang and Belongie 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import like_weights
from lightning_modules.networks.pruning import ChannelGroup
from lightning_modules.networks.vgg import load_in_order

#: Output channels of the convolutions at each side, which doubles from one tuple to the next.
STAGES = ((256,), (256, 256, 256, 128), (128, 64), (64, 3))


@dataclass(frozen=True)
class DecoderOptions:
    """AdaIN's decoder.

    Args:
        width: channels of the widest hidden layers, the paper's 256; the others are in proportion.
        gradient_checkpointing: recompute each stage in the backward pass: less memory, about a third more time.
    """

    width: Count = 256
    gradient_checkpointing: bool = False


class Decoder(nn.Module):
    """Mirrors the encoder up to relu4_1: convolutions 3 x 3 with reflection padding, nearest upsampling, no norm.

    Args:
        options: see ``DecoderOptions``.
        width: channels of the features, a multiple of 8; all other layers have as much more or less than the paper's.
    """

    def __init__(self, options: DecoderOptions = DecoderOptions(), *, width: int = 512) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        stages = [[width * channels // 512 * options.width // 256 for channels in stage] for stage in STAGES]
        # The last layer makes a picture of RGB, whatever the width.
        stages[-1][-1] = STAGES[-1][-1]
        starts = (width, *(stage[-1] for stage in stages))
        self.stages = nn.ModuleList(_Stage(start, widths) for start, widths in zip(starts, stages, strict=False))

    def forward(self, features: Tensor) -> Tensor:
        """``[N, width, H, W]`` -> pictures ``[N, 3, 8 H, 8 W]`` in [-1, 1], though not bound to it."""
        x = like_weights(features, self)
        for number, stage in enumerate(self.stages):
            if number:
                x = F.interpolate(F.relu(x), scale_factor=2.0, mode="nearest")
            x = checkpointed(stage, x, enabled=self.gradient_checkpointing)
        return x * 2 - 1

    def channel_groups(self) -> list[ChannelGroup]:
        """See ``pruning``: the channels between each two convolutions."""
        names = [name.removesuffix(".weight") for name in self.state_dict() if name.endswith(".weight")]
        return [
            ChannelGroup({f"{before}.weight": 0, f"{before}.bias": 0, f"{after}.weight": 1})
            for before, after in pairwise(names)
        ]

    def load_published(self, weights: Path) -> None:
        """Takes over the published decoder, the asset ``adain_decoder``.

        Raises:
            ValueError: the file holds something else.
        """
        load_in_order(self, weights, "the published AdaIN decoder", "adain_decoder")


class _Stage(nn.Module):
    """Convolutions at one side, with ReLUs between them."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3) for before, after in zip((channels, *widths), widths, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self.convolutions):
            x = convolution(reflect(F.relu(x) if number else x))
        return x
