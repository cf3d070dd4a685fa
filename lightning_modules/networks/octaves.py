"""Noise with grains of several sizes, out of white noise."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

#: Standard deviation of white noise that was doubled in size again and again by linear interpolation: it becomes a
#: quadratic B-spline (Chaikin 1974), whose squares sum up to 11 / 20 along each side.
SMOOTH = 11 / 20


def octaves(white: Tensor, count: int) -> Tensor:
    """Mean of white noise and of grains of 2, 4, ... pixels that are made of it, each about as strong.

    Grains are round, or a network would draw the squares' edges. Only means of 2 x 2 and linear doublings are used,
    which every runtime has.

    Args:
        white: N(0, 1), [N, C, H, W], of any side.
        count: number of sizes of grains; 1 gives ``white`` itself.

    Returns:
        Like ``white``, with a standard deviation of about 1.
    """
    levels = [white]
    for _ in range(count - 1):
        # The mean of four has half the deviation.
        levels.append(2 * F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    total = levels.pop()
    while levels:
        finer = levels.pop() * (1 if levels else SMOOTH)
        doubled = F.interpolate(total, scale_factor=2.0, mode="bilinear", align_corners=False)
        total = finer + doubled[:, :, : finer.shape[2], : finer.shape[3]]
    return total / (SMOOTH * _deviation(count)) if count > 1 else total


def _deviation(count: int) -> float:
    # Grains of sizes 2^j and 2^(j + k) at one place have a correlation of about 4 / 3 2^-k.
    return math.sqrt(count + 2 * sum((count - step) * 4 / 3 * 2.0**-step for step in range(1, count)))
