"""The generator with skip connections: a picture to another of its size (pix2pix, Isola et al. 2016).

arXiv:1611.07004.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.initialization import init_dcgan_
from lightning_modules.networks.instance_norm import InstanceNorm
from lightning_modules.networks.precision import in_full_precision, like_weights


@dataclass(frozen=True)
class UnetGeneratorOptions:
    """A generator with skip connections.

    Args:
        width: channels at half the resolution; they double with each further halving, up to 8 times ``width``.
        halvings: convolutions that halve the side: 8 for pictures of 256 pixels, 7 for 128, so that a single place is
            left in the middle.
    """

    width: Count = 64
    halvings: Count = 8


class UnetGenerator(nn.Module):
    """Convolutions 4 x 4 that halve the side, as many that double it again, and each map handed across.

    As CycleGAN's authors have it: instance norm without scale and shift but at both ends and in the middle,
    LeakyReLU(0.2) on the way down, ReLU on the way up, no dropout.

    Args:
        options: see ``UnetGeneratorOptions``.
        channels: of the pictures, 1 or 3.
    """

    def __init__(self, options: UnetGeneratorOptions = UnetGeneratorOptions(), *, channels: int = 3) -> None:
        super().__init__()
        widths = [options.width * min(2**number, 8) for number in range(options.halvings)]
        self.multiple = 2**options.halvings
        self.down = nn.ModuleList(
            nn.Conv2d(inner, outer, 4, stride=2, padding=1)
            for inner, outer in zip([channels, *widths[:-1]], widths, strict=True)
        )
        #: From the middle outwards; but for the first, they take the map of their size from the way down as well.
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[number] * (1 if number == len(widths) - 1 else 2), outer, 4, stride=2, padding=1)
            for number, outer in reversed(list(enumerate([channels, *widths[:-1]])))
        )
        self.norm = InstanceNorm()
        init_dcgan_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures of the other domain.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1]. Sides that cannot be halved so often are filled up by repeating
                the border, and cut off again.

        Returns:
            float32 (or better) of the same shape, in [-1, 1].
        """
        height, width = images.shape[2:]
        filling = (0, -width % self.multiple, 0, -height % self.multiple)
        x = like_weights(images, self)
        x = self.down[0](F.pad(x, filling, mode="replicate") if any(filling) else x)
        maps = [x]
        for number, convolution in enumerate(self.down[1:], 2):
            x = convolution(F.leaky_relu(x, 0.2))
            x = self.norm(x) if number < len(self.down) else x
            maps.append(x)
        maps.pop()
        for convolution in self.up[:-1]:
            x = torch.cat([maps.pop(), self.norm(convolution(F.relu(x)))], 1)
        made = torch.tanh(in_full_precision(self.up[-1](F.relu(x))))
        return made[:, :, :height, :width]
