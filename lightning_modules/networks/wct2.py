"""WCT2's networks: VGG19 with Haar pooling, and the decoder that mirrors it (Yoo et al. 2019, arXiv:1903.09760).

Both work in four levels, between which features are whitened and coloured. The encoder passes a level's low frequencies
on, and the decoder gets the details back: nothing of the content is lost on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.haar import haar_pool, haar_unpool, haar_unpool_part
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import like_weights
from lightning_modules.networks.vgg import VGG19

#: ``sum``: the inverse of Haar pooling; ``cat5``: its four parts and the encoder's map at this place side by side,
#: which gives clearer pictures, of weaker style.
Unpooling = Literal["sum", "cat5"]
#: Levels of the encoder in their order; the decoder's are these from the last to the first.
LEVELS = (1, 2, 3, 4)
#: Convolutions of a level: before its pooling, and after it.
STAGES: dict[Unpooling, dict[int, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "sum": {
        1: (("relu1_1", "relu1_2"), ()),
        2: (("relu2_1", "relu2_2"), ()),
        3: (("relu3_1", "relu3_2", "relu3_3", "relu3_4"), ()),
        4: ((), ("relu4_1",)),
    },
    "cat5": {
        1: ((), ("relu1_1",)),
        2: (("relu1_2",), ("relu2_1",)),
        3: (("relu2_2",), ("relu3_1",)),
        4: (("relu3_2", "relu3_3", "relu3_4"), ("relu4_1",)),
    },
}
#: Channels of the skipped maps, the first at the picture's size, each next at half of it.
SKIPS = (64, 128, 256)
#: Pixels of its larger map around a place on which a level's output depends: 5 at most.
MARGIN = 8


class WaveletEncoder(nn.Module):
    """VGG19 up to relu4_1 with Haar pooling instead of the maximum.

    Args:
        vgg: with published weights.
        unpooling: that of the decoder, which decides where levels end.
    """

    def __init__(self, vgg: VGG19, unpooling: Unpooling) -> None:
        super().__init__()
        self.vgg = vgg
        self.stages = STAGES[unpooling]

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features of images.

        Args:
            images: [N, 3, H, W] in [-1, 1].

        Returns:
            The four levels' outputs, and the three maps before pooling, whose details the decoder needs.
        """
        x, levels, skips = images, [], []
        for level in LEVELS:
            x, skip = self.level(level, x)
            levels.append(x)
            skips += [] if skip is None else [skip]
        return levels, skips

    def pools(self, level: int) -> bool:
        """Whether a level halves its input's sides."""
        return bool(self.stages[level][0])

    def level(self, level: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output of one of ``LEVELS`` for that of the one before, and its map before pooling if it pools."""
        before, after = self.stages[level]
        if level == 1:
            x = self.vgg.normalize(like_weights((x + 1) / 2, self.vgg))
        x = self._convolved(x, before)
        skip = x if before else None
        if before:
            x = haar_pool(x)[0]
        return self._convolved(x, after), skip

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """All convolutions' maps after the ReLU, ``relu1_1`` to ``relu4_1``, by name."""
        x, found = self.vgg.normalize(like_weights((images + 1) / 2, self.vgg)), {}
        for level in LEVELS:
            for names in self.stages[level]:
                for name in names:
                    x = haar_pool(x)[0] if name.endswith("_1") and name != "relu1_1" else x
                    x = found[name] = self._convolved(x, (name,))
        return found

    def _convolved(self, x: Tensor, names: Sequence[str]) -> Tensor:
        for name in names:
            x = F.relu(self.vgg.convolutions[name](reflect(x)), inplace=True)
        return x


@dataclass(frozen=True)
class WaveletDecoderOptions:
    """WCT2's decoder.

    Args:
        unpooling: ``cat5`` keeps the content's fine structure best, ``sum`` takes more of the style.
        gradient_checkpointing: recompute each level in the backward pass: less memory, about a third more time.
    """

    unpooling: Unpooling = "cat5"
    gradient_checkpointing: bool = False


class WaveletDecoder(nn.Module):
    """From relu4_1 and the skipped details to a picture: convolutions 3 x 3, Haar unpooling, no norm.

    Args:
        options: see ``WaveletDecoderOptions``.
    """

    def __init__(self, options: WaveletDecoderOptions = WaveletDecoderOptions()) -> None:
        super().__init__()
        self.unpooling = options.unpooling
        self.gradient_checkpointing = options.gradient_checkpointing
        cat5 = self.unpooling == "cat5"
        self.levels = nn.ModuleDict(
            {
                "4": DecoderLevel(512, 256, (256, 256), cat5),
                "3": DecoderLevel(256, 128, (), cat5),
                "2": DecoderLevel(128, 64, (), cat5),
                "1": nn.Conv2d(64, 3, 3),
            }
        )

    def forward(self, features: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Pictures of what ``WaveletEncoder`` made.

        Args:
            features: its last level, [N, 512, H / 8, W / 8], rounded up.
            skips: its three maps before pooling.

        Returns:
            [N, 3, H, W] in [-1, 1], though not bound to it.
        """
        x = features
        for level, skip in zip((4, 3, 2), reversed(skips), strict=True):
            x = checkpointed(_Level(self, level), x, skip, enabled=self.gradient_checkpointing)
        return self.picture(x)

    def parts(self, level: int) -> DecoderLevel:
        """The modules of level 4, 3 or 2."""
        found = self.levels[str(level)]
        assert isinstance(found, DecoderLevel)
        return found

    def level(self, level: int, x: Tensor, skip: Tensor, details: Sequence[Tensor]) -> Tensor:
        """One of the levels 4, 3 and 2.

        Args:
            level: its number.
            x: [N, C, h, w].
            skip: the encoder's map before its pooling number ``level - 1``: [N, C / 2, 2 h, 2 w], or a little less.
            details: LH, HL and HH of that pooling, perhaps transformed.

        Returns:
            [N, C', 2 h, 2 w], like ``skip``.
        """
        found: Tensor = self.levels[str(level)](like_weights(x, self), skip, details)
        return found

    def picture(self, x: Tensor) -> Tensor:
        """The last level: from [N, 64, H, W] to pictures [N, 3, H, W] in [-1, 1], though not bound to it."""
        found: Tensor = self.levels["1"](reflect(x))
        return found * 2 - 1


class _Level(nn.Module):
    """A level of a decoder with untransformed details."""

    def __init__(self, decoder: WaveletDecoder, level: int) -> None:
        super().__init__()
        self.decoder, self.number = decoder, level

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.decoder.level(self.number, x, skip, haar_pool(skip)[1:])


class DecoderLevel(nn.Module):
    """A level of the decoder: a convolution, unpooling, a convolution of what that gives, and further ones.

    Args:
        channels: of the map that comes in.
        inner: of the skipped map.
        widths: output channels of the further convolutions.
        cat5: what the second convolution sees: see ``Unpooling``.
    """

    def __init__(self, channels: int, inner: int, widths: Sequence[int], cat5: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, inner, 3)
        self.joined: nn.Conv2d = _SummedConvolution(5 * inner, inner, 3) if cat5 else nn.Conv2d(inner, inner, 3)
        self.cat5 = cat5
        self.further = nn.ModuleList(nn.Conv2d(inner, width, 3) for width in widths)

    def forward(self, x: Tensor, skip: Tensor, details: Sequence[Tensor]) -> Tensor:
        """See ``WaveletDecoder.level``."""
        x = self.unpooled(x, skip, details)
        for convolution in self.further:
            x = F.relu(convolution(reflect(x)))
        return x

    def unpooled(self, x: Tensor, skip: Tensor, details: Sequence[Tensor]) -> Tensor:
        """Up to the convolution after unpooling."""
        low = F.relu(self.first(reflect(x)))
        parts, size = (low, *details), skip.shape[2:]
        if self.cat5:
            unpooled = [haar_unpool_part(part.to(low), number, size) for number, part in enumerate(parts)]
            x = self.joined([*unpooled, skip.to(low)])
        else:
            x = self.joined(reflect(haar_unpool([part.to(low) for part in parts], size)))
        return F.relu(x)


class _SummedConvolution(nn.Conv2d):
    """A convolution over maps side by side, as a sum of convolutions: they are never copied into one."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:  # type: ignore[override] # several maps
        width = self.in_channels // len(parts)
        total = F.conv2d(reflect(parts[0]), self.weight[:, :width], self.bias)
        for number, part in enumerate(parts[1:], 1):
            total = total + F.conv2d(reflect(part), self.weight[:, number * width : (number + 1) * width])
        return total
