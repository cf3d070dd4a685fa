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
from lightning_modules.networks.experts import ExpertOptions, Experts, Router, Routing
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
        experts: residual blocks behind the first convolution, of which a gate chooses; none by default.
    """

    width: Count = 256
    gradient_checkpointing: bool = False
    experts: ExpertOptions = ExpertOptions()


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
        #: Chooses experts by the features' means and standard deviations, [N, 2 * width].
        self.router: Router | None = None
        self.experts: Experts | None = None
        if options.experts.count:
            self.router = Router(options.experts, features=2 * width)
            self.experts = Experts(options.experts, stages[0][-1])

    def forward(self, features: Tensor, routing: Routing | None = None) -> Tensor:
        """``[N, width, H, W]`` -> pictures ``[N, 3, 8 H, 8 W]`` in [-1, 1], though not bound to it.

        Args:
            features: what to draw.
            routing: of the ``router``, where there are experts.
        """
        x = like_weights(features, self)
        for number, stage in enumerate(self.stages):
            if number:
                x = F.interpolate(F.relu(x), scale_factor=2.0, mode="nearest")
            x = checkpointed(stage, x, enabled=self.gradient_checkpointing)
            if not number and self.experts is not None:
                assert routing is not None, "a decoder with experts needs a routing"
                x = checkpointed(self.experts, x, routing.chosen, routing.shares, enabled=self.gradient_checkpointing)
        return x * 2 - 1

    def channel_groups(self) -> list[ChannelGroup]:
        """See ``pruning``: the channels between each two convolutions."""
        names = [name.removesuffix(".weight") for name in self.stages.state_dict(prefix="stages.") if "weight" in name]
        places = [
            {f"{before}.weight": 0, f"{before}.bias": 0, f"{after}.weight": 1} for before, after in pairwise(names)
        ]
        if self.experts is not None:
            # They add to what the first convolution makes.
            places[0] |= {"experts.first.weight": 1, "experts.second.weight": 0, "experts.second.bias": 0}
        return [ChannelGroup(group) for group in places]

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
