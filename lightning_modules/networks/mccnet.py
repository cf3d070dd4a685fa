"""MCCNet: style transfer by correlations of channels (Deng et al. 2021, arXiv:2009.08003)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gesso.common.ranges import Positive
from lightning_modules.losses.style import EPSILON
from lightning_modules.networks.adain import Decoder, DecoderOptions
from lightning_modules.networks.precision import in_full_precision, like_weights
from lightning_modules.networks.rows import rows

#: Channels of VGG19's relu4_1, between which all of this happens.
WIDTH = 512
#: Mean and standard deviation of each channel, [N, C, 1, 1] each.
Statistics = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MCCNetOptions:
    """MCCNet's network, of the paper's only size.

    Args:
        floor: least size of what correlations are divided by. The authors divide by whatever there is; of their 512
            random divisors about one begins below 1e-4, and lets its channel outshout all others.
        gradient_checkpointing: recompute each stage of the decoder in the backward pass: less memory, about a third
            more time.
    """

    floor: Positive = 1e-3
    gradient_checkpointing: bool = False


def normalized(features: Tensor, statistics: Statistics | None = None) -> Tensor:
    """Features ``[N, C, h, w]`` with mean 0 and standard deviation 1 in each channel, in float32 or better.

    Args:
        statistics: those of a whole picture, when the features are of a tile; None: their own. The variance is
            Bessel-corrected; a map of a single place has none.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = in_full_precision(features)
        if statistics is None:
            correction = int(features[0, 0].numel() > 1)
            variance, mean = torch.var_mean(features, (2, 3), keepdim=True, correction=correction)
            statistics = mean, (variance + EPSILON).sqrt()
        mean, std = statistics
        return (features - mean) / std


class SelfCorrelation(nn.Conv2d):
    """The correlation of each channel of a style with itself: Σ g² / Σ g over the places, g a 1 x 1 convolution.

    As the convolution's inputs have mean 0 in each channel, the mean of g is its bias, exactly: this is
    mean(g²) / bias, without the rounding of a sum that cancels. Statistics and division are fp32 islands.

    Args:
        width: channels.
        floor: least size of a bias as divisor.
    """

    def __init__(self, width: int, floor: float) -> None:
        super().__init__(width, width, 1)
        self.floor = floor

    def forward(self, features: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Features ``[N, C, h, w]`` to ``[N, C]``, float32 or better; see ``normalized`` for ``statistics``."""
        mapped = super().forward(like_weights(normalized(features, statistics), self))
        assert self.bias is not None
        with torch.autocast(features.device.type, enabled=False):
            bias = in_full_precision(self.bias)
            divisor = torch.where(bias < 0, bias.clamp(max=-self.floor), bias.clamp(min=self.floor))
            return in_full_precision(mapped).square().mean((2, 3)) / divisor


class MCCNetwork(nn.Module):
    """Features of a content and of a style at VGG19's relu4_1 to the content in that style.

    All that is taken of a style are 512 numbers, its channels' correlations with themselves, mixed by a linear layer;
    by these the content's normalised channels are multiplied, and added to the content's features. So nothing moves
    that does not move in the content, which is what makes it fit for video.

    Args:
        options: see ``MCCNetOptions``.
    """

    def __init__(self, options: MCCNetOptions = MCCNetOptions()) -> None:
        super().__init__()
        self.content = nn.Conv2d(WIDTH, WIDTH, 1)
        self.style = SelfCorrelation(WIDTH, options.floor)
        self.mixing = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Conv2d(WIDTH, WIDTH, 1)
        self.decoder = Decoder(DecoderOptions(gradient_checkpointing=options.gradient_checkpointing))

    def forward(self, content: Tensor, style: Tensor, pairs: Tensor | None = None) -> Tensor:
        """The contents in the styles.

        Args:
            content: features ``[N, 512, h, w]``.
            style: features ``[M, 512, h', w']``, of any size of their own.
            pairs: int64 ``[P, 2]``: numbers of a content and of a style. None: each content with the style of its own
                number.

        Returns:
            Pictures ``[P, 3, 8 h, 8 w]`` in [-1, 1], though not bound to it.
        """
        factors = self.factors(style)
        if pairs is not None:
            content, factors = rows(content, pairs[:, 0]), rows(factors, pairs[:, 1])
        return self.decoder(self.transferred(content, factors))

    def factors(self, style: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Style features ``[N, 512, h, w]`` to what the content's channels are multiplied by: ``[N, 512, 1, 1]``.

        Factors of a picture's tiles, with its ``statistics``, have the picture's as their mean over places.
        """
        with torch.autocast(style.device.type, enabled=False):
            factors = self.mixing(like_weights(self.style(style, statistics), self))
        return in_full_precision(factors)[..., None, None]

    def transferred(self, content: Tensor, factors: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Content features ``[N, 512, h, w]`` in a style, for ``decoder``: float32 or better, of the same shape.

        Args:
            factors: of ``factors``, the same everywhere or ``[N, 512, h, w]``.
            statistics: see ``normalized``.
        """
        mapped = self.content(like_weights(normalized(content, statistics), self))
        return in_full_precision(content) + self.output((mapped * factors).to(mapped.dtype))
