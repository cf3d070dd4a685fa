"""The discriminator of several sizes: one network for the picture and one for each half of it (pix2pixHD's, MUNIT's).

Wang et al. 2018, arXiv:1711.11585; Huang et al. 2018, arXiv:1804.04732.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.initialization import init_dcgan_
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import like_weights


@dataclass(frozen=True)
class MultiscaleDiscriminatorOptions:
    """A discriminator of several sizes.

    Args:
        width: channels after the first convolution; they double with each further one.
        layers: convolutions that halve the side, of each network.
        scales: number of networks: the first sees the picture, each further one half of what the one before sees.
    """

    width: Count = 64
    layers: Count = 4
    scales: Count = 3


class MultiscaleDiscriminator(nn.Module):
    """Images to a map of logits for each size: convolutions 4x4 that halve, LeakyReLU(0.2), no norm, 1x1 at the end.

    Args:
        options: see ``MultiscaleDiscriminatorOptions``.
        channels: of the images.
    """

    def __init__(
        self, options: MultiscaleDiscriminatorOptions = MultiscaleDiscriminatorOptions(), *, channels: int = 3
    ) -> None:
        super().__init__()
        self.options = options
        widths = [channels, *(options.width * 2**number for number in range(options.layers))]
        self.scales = nn.ModuleList(
            nn.ModuleList(
                [
                    *(nn.Conv2d(inner, outer, 4, stride=2) for inner, outer in itertools.pairwise(widths)),
                    nn.Conv2d(widths[-1], 1, 1),
                ]
            )
            for _ in range(options.scales)
        )
        #: Side below which the last network has nothing left to see.
        self.smallest = 2 ** (options.layers + options.scales - 1)
        init_dcgan_(self)

    def check_side(self, resolution: int) -> None:
        """Checks that images of ``resolution`` pixels are large enough.

        Raises:
            ValueError: they are too small; names the options.
        """
        if resolution < self.smallest:
            raise ValueError(
                f"resolution {resolution} is too small for a discriminator with {self.options.layers} layers at "
                f"{self.options.scales} sizes, which wants {self.smallest} pixels or more: set discriminator.layers or "
                "discriminator.scales lower"
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of each size's patches, float32 (or better) ``[N, 1, h, w]``; positive means real.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1].
        """
        x, found = like_weights(images, self), []
        for number, scale in enumerate(self.scales):
            if number:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            found.append(self._logits(scale, x))
        return found

    def _logits(self, scale: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(scale, nn.ModuleList)
        *convolutions, to_logits = scale
        for convolution in convolutions:
            x = F.leaky_relu(convolution(reflect(x)), 0.2)
        assert isinstance(to_logits, nn.Conv2d)
        # In the parameters' own precision, as DCGAN's.
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = to_logits(x.to(to_logits.weight.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
