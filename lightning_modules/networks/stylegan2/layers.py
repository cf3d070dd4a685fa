"""Layers of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; ADA, Karras et al. 2020, arXiv:2006.06676).

Weights are drawn from N(0, 1) and scaled when they are used (equalised learning rate, Karras et al. 2018).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import downsample, filtered, setup_filter

Activation = Literal["linear", "lrelu"]


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    activation: Activation = "linear",
    *,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """Adds a bias, applies the activation, scales, and clamps.

    Args:
        x: ``[N, C]`` or ``[N, C, H, W]``.
        bias: ``[C]``.
        activation: ``linear``, or ``lrelu``: leaky ReLU of slope 0.2, times sqrt(2), which keeps the variance.
        gain: another factor.
        clamp: the result lies within this number times ``gain`` of 0; None: no bound.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))
    factor = gain
    if activation == "lrelu":
        x = F.leaky_relu(x, 0.2)
        factor *= math.sqrt(2)
    if factor != 1:
        x = x * factor
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


class EqualizedLinear(nn.Module):
    """Linear layer of equalised learning rate.

    Args:
        inputs, outputs: features.
        activation: applied to the result.
        lr_multiplier: of the learning rate of its weights and bias.
        bias_init: initial value of the bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation, self.lr_multiplier = activation, lr_multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs]`` to ``[N, outputs]``."""
        weight = self.weight.to(x.dtype) * (self.lr_multiplier / math.sqrt(self.weight.shape[1]))
        return bias_act(F.linear(x, weight), self.bias * self.lr_multiplier, self.activation)


class EqualizedConv2d(nn.Module):
    """Convolution of equalised learning rate that keeps the resolution, or filters and halves it.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        activation: applied to the result.
        bias: whether there is one.
        halve: whether the resolution is halved.
        clamp: bound of the result; None: none.
    """

    taps: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        activation: Activation = "linear",
        bias: bool = True,
        halve: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.halve, self.clamp = activation, halve, clamp
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, or half of H and W; times ``gain``."""
        inputs, kernel = self.weight.shape[1], self.weight.shape[2]
        weight = (self.weight / math.sqrt(inputs * kernel**2)).to(x.dtype)
        if not self.halve:
            x = F.conv2d(x, weight, padding=kernel // 2)
        elif kernel == 1:
            x = F.conv2d(downsample(x, self.taps), weight)
        else:
            length = len(self.taps)
            around = ((length - 1) // 2 + kernel // 2, (length - 2) // 2 + kernel // 2)
            x = F.conv2d(filtered(x, self.taps, around), weight, stride=2)
        return bias_act(x, self.bias, self.activation, gain=gain, clamp=self.clamp)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    upsample_taps: Tensor | None = None,
    padding: int | None = None,
    gain: Tensor | None = None,
) -> Tensor:
    """Convolves with weights whose input channels a style scales, and whose outputs are brought to unit variance.

    Section 2.2 of the paper, as scale, convolve, scale: x s, then the shared weights, then d = rsqrt(sum (w s)^2 + eps)
    out of summed squared weights, so that no image needs weights of its own.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, K, K]``.
        styles: s, at least float32 ``[N, I]``.
        demodulate: whether d is applied.
        upsample_taps: the low-pass filter with which the resolution is doubled; None: it stays.
        padding: zeros around ``x``, where the resolution is not doubled; None: as many as keep its size.
        gain: factor of ``x``, a scalar; it is not demodulated.

    Returns:
        ``[N, O, H, W]``, or twice H and W, in the dtype of ``x``.
    """
    weight = in_full_precision(weight)
    inputs, kernel = weight.shape[1], weight.shape[2]
    if demodulate and x.dtype == torch.float16:
        # Demodulation takes any factor back: now nothing overflows.
        weight = weight / (weight.abs().amax((1, 2, 3), keepdim=True) * math.sqrt(inputs * kernel**2))
        styles = styles / styles.abs().amax(1, keepdim=True)
    scaled = x * (styles if gain is None else styles * gain).to(x.dtype)[:, :, None, None]
    if upsample_taps is None:
        x = F.conv2d(scaled, weight.to(x.dtype), padding=kernel // 2 if padding is None else padding)
    else:
        x = _doubling_convolution(scaled, weight.to(x.dtype), upsample_taps)
    if demodulate:
        factors = (styles.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()
        x = x * factors.to(x.dtype)[:, :, None, None]
    return x


def _doubling_convolution(x: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
    """Zeros between the pixels, convolution and low-pass filter: ``[N, O, 2H, 2W]``."""
    kernel, length = weight.shape[2], len(taps)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    before = kernel // 2 + (length + 1) // 2 - (kernel - 1)
    after = kernel // 2 + (length - 2) // 2 - (kernel - 2)
    return filtered(x, taps, (before, after), gain=4.0)


class MinibatchDeviation(nn.Module):
    """Adds features that say how much the images of a group differ (Karras et al. 2018, arXiv:1710.10196).

    Image i of a batch of N is in group i modulo N / ``group``. As images are dealt to ranks in turn, groups are the
    same for any number of ranks.

    Args:
        group: images of a group; a smaller batch is one group.
        features: number of added channels.
    """

    def __init__(self, group: int = 4, features: int = 1) -> None:
        super().__init__()
        self.group, self.features = group, features

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C + features, H, W]``.

        Raises:
            ValueError: the batch is no multiple of the group, in training mode.
        """
        count = len(x)
        group = min(self.group, count)
        missing = -count % group
        if missing and self.training:
            raise ValueError(f"minibatch deviation in groups of {group}: {count} images are no multiple of it")
        if missing:
            # The rest of a held-out set: the first images fill the groups up.
            return self(torch.cat([x, x[:missing]]))[:count]
        height, width = x.shape[2:]
        apart = x.reshape(group, count // group, self.features, -1, height, width)
        deviation = (apart.var(0, correction=0) + 1e-8).sqrt().mean((2, 3, 4))
        return torch.cat([x, deviation[:, :, None, None].repeat(group, 1, height, width)], 1)
