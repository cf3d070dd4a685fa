"""An adversarial loss that is brought to the size of a reconstruction loss (VQGAN, Esser et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

#: Added to the adversarial gradient's norm, and the largest weight, as in the authors' code.
EPSILON, LARGEST = 1e-4, 1e4


def balanced_loss(
    reconstruction: Tensor, adversarial: Tensor, weight: float, picture: Tensor, features: Tensor, layer: nn.Conv2d
) -> tuple[Tensor, Tensor]:
    """``reconstruction + weight * ratio * adversarial``, arXiv:2012.09841, eqs. 6 and 7.

    The ratio is that of both losses' gradients in the last layer. These are computed from the picture's gradients,
    which also are the loss's own: what lies behind the picture (a discriminator, LPIPS) is differentiated once, so that
    its weights may be gone afterwards, and so may the layer's (ZeRO 3).

    Args:
        reconstruction, adversarial: scalars, functions of ``picture`` alone.
        weight: of the adversarial loss.
        picture: [N, C, H, W], what ``layer`` made.
        features: [N, F, H, W], of which it made that.
        layer: the last layer, a convolution with stride 1.

    Returns:
        The loss, whose gradient is what the formula says (the ratio has none), and ``weight * ratio``.
    """
    gradients = [_gradient(loss, picture) for loss in (reconstruction, adversarial)]
    norms = [_weight_gradient(gradient, features, layer).norm() for gradient in gradients]
    chosen = weight * (norms[0] / (norms[1] + EPSILON)).clamp(0, LARGEST)
    path = (picture * (gradients[0] + chosen * gradients[1])).sum()
    value = reconstruction.detach() + chosen * adversarial.detach()
    return value + (path - path.detach()), chosen


def _gradient(loss: Tensor, picture: Tensor) -> Tensor:
    # Means over many pixels have gradients that 16 bits would round to 0.
    scale = float(2 ** picture.numel().bit_length())
    (gradient,) = torch.autograd.grad(loss * scale, picture)
    return gradient / scale


def _weight_gradient(gradient: Tensor, features: Tensor, layer: nn.Conv2d) -> Tensor:
    shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
    with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
        inputs = features.detach().to(gradient.dtype)
        assert isinstance(layer.padding, tuple)
        return conv2d_weight(inputs, shape, gradient, padding=layer.padding)
