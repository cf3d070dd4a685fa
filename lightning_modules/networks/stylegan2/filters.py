"""FIR filters of images along both axes, with up- and downsampling (StyleGAN2, Karras et al. 2020, arXiv:1912.04958).

All of them are linear and made of convolutions alone, so they can be differentiated any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: The filter of StyleGAN2's networks, before it is normalised.
BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def setup_filter(taps: Sequence[float] = BINOMIAL) -> Tensor:
    """Taps of one axis, ``[K]`` in torch's default dtype, scaled so that they sum to 1: a constant image stays."""
    exact = torch.tensor(list(taps), dtype=torch.float64)
    return (exact / exact.sum()).to(torch.get_default_dtype())


def upfirdn2d(
    x: Tensor,
    taps: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
    flip: bool = False,
) -> Tensor:
    """Upsamples by zeros between pixels, pads with zeros, filters, and keeps every ``down``-th pixel.

    Args:
        x: ``[N, C, H, W]``.
        taps: of the separable filter, ``[K]``.
        up, down: factors, the same along both axes.
        padding: pixels before and after, on both axes of the upsampled image; negative ones crop.
        gain: factor of the result.
        flip: correlate with the filter instead of convolving.

    Returns:
        ``[N, C, H', W']`` in the dtype of ``x``, where H' = (up H + the padding - K) // down + 1.
    """
    kernel = (taps * gain**0.5).to(x.dtype)
    # torch's convolutions correlate.
    kernel = kernel if flip else kernel.flip(0)
    length, before, after = len(kernel), *padding
    if up == 1:
        x = F.pad(x, (before, after, before, after))
        return _along_axes(x, kernel, stride=down)
    # Each pixel spreads over the filter's length, so that no zeros are multiplied.
    x = _spread_along_axes(x, kernel.flip(0), stride=up)
    before, after = before - (length - 1), after - (length - 1) + (up - 1)
    x = F.pad(x, (before, after, before, after))
    return x[:, :, ::down, ::down] if down > 1 else x


def filtered(x: Tensor, taps: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """``upfirdn2d`` at one resolution."""
    return upfirdn2d(x, taps, padding=padding, gain=gain)


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Twice the height and width: ``[N, C, H, W]`` to ``[N, C, 2H, 2W]``; the mean stays."""
    length = len(taps)
    return upfirdn2d(x, taps, up=2, padding=((length + 1) // 2, (length - 2) // 2), gain=4.0)


def downsample(x: Tensor, taps: Tensor, *, crop: int = 0, flip: bool = False) -> Tensor:
    """Half the height and width: ``[N, C, H, W]`` to ``[N, C, H/2, W/2]``.

    Args:
        x: images or features.
        taps: of the filter.
        crop: pixels of ``x`` to leave out at each edge.
        flip: correlate with the filter instead of convolving.
    """
    length = len(taps)
    return upfirdn2d(x, taps, down=2, padding=((length - 1) // 2 - crop, (length - 2) // 2 - crop), flip=flip)


def _along_axes(x: Tensor, kernel: Tensor, *, stride: int) -> Tensor:
    channels, length = x.shape[1], len(kernel)
    across = kernel.view(1, 1, 1, length).expand(channels, 1, 1, length)
    x = F.conv2d(x, across, stride=(1, stride), groups=channels)
    return F.conv2d(x, across.transpose(2, 3), stride=(stride, 1), groups=channels)


def _spread_along_axes(x: Tensor, kernel: Tensor, *, stride: int) -> Tensor:
    channels, length = x.shape[1], len(kernel)
    across = kernel.view(1, 1, 1, length).expand(channels, 1, 1, length)
    x = F.conv_transpose2d(x, across, stride=(1, stride), groups=channels)
    return F.conv_transpose2d(x, across.transpose(2, 3), stride=(stride, 1), groups=channels)
