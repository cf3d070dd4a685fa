"""A discriminator that looks at images through a frozen network (Projected GANs, Sauer et al. 2021, arXiv:2111.01007).

Four feature maps of the frozen network are mixed by fixed random weights, across channels and then across scales; a
small discriminator looks at each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gesso.common.randomness import mix_seed
from lightning_modules.networks.batch_norm import BatchNorm2d
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.precision import weights_dtype

#: Reductions of the side of the four feature maps of a frozen network.
STRIDES = (4, 8, 16, 32)
#: Channels of the small discriminators' feature maps, by their nominal side: that of images of 256 px.
CHANNELS = {8: 512, 16: 256, 32: 128, 64: 64, 128: 64}
#: Dimensions of a class's embedding, and of what it is multiplied with.
EMBEDDED, COMPARED = 128, 64


class FeaturePyramid(nn.Module):
    """Four feature maps of a frozen sequential network, of reductions ``STRIDES``.

    Args:
        layers: the network's layers in order.
        ends: after which of them, counted from 1, the maps are taken.
        mean, std: of the network's input, for images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, layers: Sequence[nn.Module], ends: Sequence[int], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(*layers[first:last]) for first, last in pairwise((0, *ends)))
        # For images in [-1, 1].
        self.register_buffer("mean", torch.tensor(list(mean)).view(3, 1, 1) * 2 - 1)
        self.register_buffer("std", torch.tensor(list(std)).view(3, 1, 1) * 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images ``[N, 1 or 3, H, W]`` in [-1, 1] to maps ``[N, C, H / stride, W / stride]``, in [C] of the network."""
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class RandomMixing(nn.Module):
    """Mixes feature maps by fixed random weights: 1x1 convolutions, then sums from the smallest to the largest map.

    The weights are buffers: in a checkpoint, but never trained.

    Args:
        channels: of the four maps, the largest map first.
        width: channels of the first mixed map.
        seed: of the weights.
    """

    def __init__(self, channels: Sequence[int], width: int, seed: int) -> None:
        super().__init__()
        between = [width * 2**level for level in range(len(channels))]
        #: Channels of the mixed maps.
        self.channels = [width, *between[:-1]]
        generator = torch.Generator().manual_seed(mix_seed(seed))
        for kind, sizes in (
            ("channel", list(zip(channels, between, strict=True))),
            ("scale", list(zip(between, self.channels, strict=True))),
        ):
            for level, (before, after) in enumerate(sizes):
                # As torch draws a convolution's.
                bound = 1 / math.sqrt(before)
                for name, shape in (("weight", (after, before, 1, 1)), ("bias", (after,))):
                    drawn = torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1
                    self.register_buffer(f"{kind}_{name}_{level}", (drawn * bound).to(torch.get_default_dtype()))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[N, C_i, H_i, W_i]``, each half as large as the last, to ``[N, channels[i], 2 H_i, 2 W_i]``."""
        mixed = [self._mixed("channel", level, x) for level, x in enumerate(maps)]
        found: list[Tensor] = []
        for level in reversed(range(len(mixed))):
            x = mixed[level] + found[-1] if found else mixed[level]
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            found.append(self._mixed("scale", level, x))
        return found[::-1]

    def _mixed(self, kind: str, level: int, x: Tensor) -> Tensor:
        weight, bias = (getattr(self, f"{kind}_{name}_{level}") for name in ("weight", "bias"))
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype))


class SmallDiscriminator(nn.Module):
    """One mixed map to logits: convolutions that halve it, and a last one of 4x4; all spectrally normalised.

    Args:
        channels: of the map and of the maps after each halving.
        num_classes: 0: unconditional; else what comes out is multiplied with the label's embedding.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            halving = parametrizations.spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
            layers += [halving, BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        last = nn.Conv2d(channels[-1], COMPARED if num_classes else 1, 4, bias=False)
        self.output = parametrizations.spectral_norm(last)
        self.embedding = nn.Embedding(num_classes, EMBEDDED) if num_classes else None
        self.compared = nn.Linear(EMBEDDED, COMPARED) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """``[N, C, H, W]`` to logits ``[N, L]``, in the precision of the weights."""
        x = self.layers(x)
        with torch.autocast(x.device.type, enabled=False):
            x = self.output(x.to(weights_dtype(self)))
            if self.embedding is not None and self.compared is not None:
                against = F.leaky_relu(self.compared(self.embedding(labels)), 0.2)
                x = (x * against[:, :, None, None]).sum(1) / math.sqrt(COMPARED)
            return x.flatten(1)


class ProjectedDiscriminator(nn.Module):
    """Feature maps of images to the logits of four small discriminators.

    Args:
        channels: of the feature maps, the largest map first.
        size: side of the images in pixels at which the maps are taken.
        width: channels of the first mixed map.
        num_classes: 0: unconditional.
        seed: of the random mixing.

    Raises:
        ValueError: ``size`` is no multiple of 32, or less than 64.
    """

    def __init__(
        self, channels: Sequence[int], *, size: int = 224, width: int = 64, num_classes: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        if size % STRIDES[-1] or size < 2 * STRIDES[-1]:
            raise ValueError(
                f"feature_size is {size}; it must be a multiple of {STRIDES[-1]}, {2 * STRIDES[-1]} or more"
            )
        self.num_classes = num_classes
        self.mixing = RandomMixing(channels, width, seed)
        self.discriminators = nn.ModuleList()
        for stride, first, nominal in zip(STRIDES, self.mixing.channels, (128, 64, 32, 16), strict=True):
            # As many as the authors' at 224 px; fewer where less than 4x4 would be left.
            halvings = min(int(math.log2(nominal // 8)), int(math.log2(2 * size / stride / 4)))
            halved = [CHANNELS[nominal >> number] for number in range(1, halvings + 1)]
            self.discriminators.append(SmallDiscriminator([first, *halved], num_classes))

    def forward(self, maps: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Logits ``[N, L]`` of all places of all small discriminators, in the weights' precision; positive means real.

        Args:
            maps: of the frozen network, the largest first.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        mixed = self.mixing(maps)
        logits = [network(x, labels) for network, x in zip(self.discriminators, mixed, strict=True)]
        return torch.cat(logits, 1)
