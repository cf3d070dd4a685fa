"""Low-pass filters of StyleGAN3, and images resampled with them (Karras et al. 2021, arXiv:2106.12423, appendix C).

Along an axis, resampling is a product with a banded matrix: a block of neighbouring results needs a window of
neighbouring pixels, and every block has the same weights. No zeros are inserted or multiplied, and nothing but matrix
products is differentiated.
"""

from __future__ import annotations

import math

import torch
from scipy.special import j1
from torch import Tensor, nn
from torch.nn import functional as F

#: Results of one product, about: more of them waste arithmetic outside of the band, fewer waste memory traffic.
BLOCK = 32


def kaiser_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """Taps of a low-pass filter with a Kaiser window, float64 ``[taps]``, which sum to 1 (``scipy.signal.firwin``).

    Args:
        taps: number of them.
        cutoff: frequency at which half of the amplitude is left, in cycles per unit of length.
        width: of the transition band, in the same unit.
        rate: samples per unit of length.
    """
    places = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    ideal = torch.sinc(2 * cutoff / rate * places)
    found = ideal * _window(taps, width, rate)
    return found / found.sum()


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """Like ``kaiser_lowpass``, of two axes and the same in every direction (the jinc filter): ``[taps, taps]``."""
    places = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    # In the middle of an odd number of taps, about its limit. torch's own function is right to 5e-7 alone.
    radius = torch.hypot(places[:, None], places[None]).clamp(min=1e-9)
    jinc = torch.from_numpy(j1((2 * math.pi * cutoff * radius).numpy())) / radius
    window = _window(taps, width, rate)
    found = jinc * window[:, None] * window[None]
    return found / found.sum()


def _window(taps: int, width: float, rate: float) -> Tensor:
    """The Kaiser window that such a transition needs (``kaiser_atten`` and ``kaiser_beta`` of ``scipy.signal``)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)


class Resampling(nn.Module):
    """Resamples images along both axes: zeros between the pixels, a separable filter, every ``down``-th result.

    Args:
        taps: the filter, float64 ``[K]``; symmetric.
        up: factor by which pixels are moved apart; the filter is scaled by it, so that a constant stays.
        down: every so many results are kept; one of ``up`` and ``down`` is 1.
        before: place of the first pixel: number of zeros before it among the filter's inputs, negative: it is cropped.
        size: length of an axis of the images.
        results: length of an axis of the result.
    """

    matrix: Tensor

    def __init__(self, taps: Tensor, *, up: int = 1, down: int = 1, before: int = 0, size: int, results: int) -> None:
        super().__init__()
        length, block = len(taps), max(up, BLOCK - BLOCK % up)
        # Result o is the sum of pixels i times tap i up + before - o down, where there is one.
        first = math.ceil(-before / up)
        window = ((block - 1) * down - before + length - 1) // up - first + 1
        places = torch.arange(first, first + window)[:, None] * up + before - torch.arange(block)[None] * down
        inside = (places >= 0) & (places < length)
        weights = torch.where(inside, up * taps[places.clamp(0, length - 1)], 0.0)
        self.register_buffer("matrix", weights.to(torch.get_default_dtype()), persistent=False)
        self.nothing_to_do = length == up == down == 1 and before == 0 and size == results
        self.step, self.results = block * down // up, results
        blocks = math.ceil(results / block)
        #: Zeros before and after the pixels, or fewer than none of them.
        self.padding = (-first, (blocks - 1) * self.step + window + first - size)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, size, size]`` to ``[N, C, results, results]``, in the dtype of ``x``."""
        return x if self.nothing_to_do else self._along_columns(self._along_rows(x))

    def _along_rows(self, x: Tensor) -> Tensor:
        windows = F.pad(x, self.padding).unfold(-1, len(self.matrix), self.step)
        return (windows @ self.matrix.to(x.dtype)).flatten(-2)[..., : self.results]

    def _along_columns(self, x: Tensor) -> Tensor:
        windows = F.pad(x, (0, 0, *self.padding)).unfold(-2, len(self.matrix), self.step)
        blocks = windows @ self.matrix.to(x.dtype)
        return blocks.transpose(-1, -2).flatten(-3, -2)[..., : self.results, :]


class RadialDownsampling(nn.Module):
    """Filters images with a filter of two axes and keeps every ``down``-th result along each.

    Args:
        taps: the filter, float64 ``[K, K]``; symmetric.
        down: the factor.
    """

    kernel: Tensor

    def __init__(self, taps: Tensor, *, down: int) -> None:
        super().__init__()
        self.down = down
        self.register_buffer("kernel", taps.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, (H - K) // down + 1, (W - K) // down + 1]``, in the dtype of ``x``."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, stride=self.down, groups=channels)
