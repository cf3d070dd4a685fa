"""Statistics of VGG19's features as one vector of a picture's style, and a learned head on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.precision import at_least_float32, in_full_precision, weights_dtype
from lightning_modules.networks.vgg import VGG19

#: Layers of VGG19 whose statistics tell the style, as in AdaIN; and how many numbers these are.
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
STATISTICS = 2 * (64 + 128 + 256 + 512)
#: Added to statistics before their logarithm. The normalised VGG19's mean activations are about 1.
FLOOR = 0.05


def style_statistics(encoder: VGG19, images: Tensor) -> Tensor:
    """Means and standard deviations of the channels at ``LAYERS`` over the places, which tell nothing of the layout.

    Args:
        encoder: with published weights.
        images: [N, 3, H, W] in [-1, 1], of any side.

    Returns:
        float32 or better [N, STATISTICS].
    """
    return feature_statistics(encoder(images, LAYERS))


def feature_statistics(found: Mapping[str, Tensor]) -> Tensor:
    """``style_statistics`` out of VGG19's features by layer, which ``LAYERS`` are among: [N, C, h, w] each."""
    statistics = []
    for features in (found[name] for name in LAYERS):
        with torch.autocast(features.device.type, enabled=False):
            variance, mean = torch.var_mean(in_full_precision(features), (2, 3), correction=0)
            # Without the floor, a constant channel's root would have an infinite gradient.
            statistics += [mean, (variance + 1e-5).sqrt()]
    return torch.cat(statistics, 1)


def normalised(statistics: Tensor) -> Tensor:
    """Logarithms of statistics [N, S], with mean 0 and variance 1 over each row."""
    x = (in_full_precision(statistics) + FLOOR).log()
    return F.layer_norm(x, x.shape[1:])


@dataclass(frozen=True)
class StyleHeadOptions:
    """The head.

    Args:
        width: units of its hidden layer.
        code_dim: length of a code.
    """

    width: Count = 512
    code_dim: Count = 128


class StyleHead(nn.Module):
    """Statistics to codes of length 1: their logarithms, normalised over the vector, and a perceptron.

    Args:
        options: see ``StyleHeadOptions``.
        statistics: how many numbers come in.
    """

    def __init__(self, options: StyleHeadOptions = StyleHeadOptions(), *, statistics: int = STATISTICS) -> None:
        super().__init__()
        self.options = options
        self.hidden = nn.Linear(statistics, options.width)
        self.output = nn.Linear(options.width, options.code_dim)

    def forward(self, statistics: Tensor, keep: Tensor | None = None) -> Tensor:
        """Codes ``[N, code_dim]``, at least float32, of ``statistics`` ``[N, statistics]``, which are 0 or more.

        Args:
            keep: factors of the normalised statistics, of the same shape: a mask of dropout; None: all count.
        """
        own = weights_dtype(self)
        with torch.autocast(statistics.device.type, enabled=False):
            x = normalised(statistics)
            x = x if keep is None else x * keep
            x = self.output(F.leaky_relu(self.hidden(x.to(own)), 0.2))
            return F.normalize(x.to(at_least_float32(own)), dim=1)
