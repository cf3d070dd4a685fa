"""A small classifier of pictures, and the relations of neighbouring pixels that it may look at instead of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.pixels import to_float
from gesso.common.ranges import Count


@dataclass(frozen=True)
class ClassifierOptions:
    """A classifier.

    Args:
        channels: of the pictures, 1 or 3.
        outputs: number of classes.
        width: channels of the first two convolutions; those after them have two and four times as many.
        npr: look at ``pixel_relations`` alone.
        levels: number of further convolutions, each at half the size of the one before.
    """

    channels: Count
    outputs: Count
    width: Count = 32
    npr: bool = False
    levels: Count = 2


class Classifier(nn.Module):
    """Pictures to a logit for each class: 3 x 3 convolutions with batch norm, and a mean over all places.

    The first two convolutions see every pixel: what tells generators lies in the finest detail. Batch norm and not
    group norm, which would remove a picture's brightness.

    Args:
        options: see ``ClassifierOptions``.
    """

    def __init__(self, options: ClassifierOptions) -> None:
        super().__init__()
        self.options = options
        wider = [min(2**level, 4) * options.width for level in range(1, options.levels + 1)]
        widths = [options.channels, options.width, options.width, *wider]
        blocks: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            blocks += [nn.AvgPool2d(2)] if number > 1 else []
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], options.outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, outputs].

        Args:
            images: [N, channels, H, W] in [-1, 1]; H and W of 2^levels or more.
        """
        x = pixel_relations(images) if self.options.npr else images
        return self.head(self.blocks(x).mean((2, 3)))


def levels_of(side: int) -> int:
    """Levels down to about 4 x 4 places, each of which sees all of a picture of this many pixels; 2 or more."""
    return max(2, side.bit_length() - 3)


def pixel_relations(images: Tensor) -> Tensor:
    """Neighbouring pixel relations: each pixel minus the upper left one of its 2 x 2 cell (arXiv:2312.10461).

    Upsampling in a generator ties the pixels of a cell to each other, whatever the picture shows. An odd last row or
    column is cut off.

    Args:
        images: [N, C, H, W].

    Returns:
        [N, C, 2 (H // 2), 2 (W // 2)].
    """
    height, width = (side // 2 * 2 for side in images.shape[2:])
    images = images[:, :, :height, :width]
    return images - F.interpolate(images[:, :, ::2, ::2], scale_factor=2, mode="nearest")


@torch.no_grad()
def probabilities(network: Classifier, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """The probability of each class, float32 [N, outputs] on the CPU.

    Args:
        network: in eval mode.
        images: uint8 [N, C, H, W].
    """
    device = next(network.parameters()).device
    parts = (to_float(part.to(device)) for part in images.split(batch_size))
    return torch.cat([network(part).softmax(1).cpu() for part in parts])
