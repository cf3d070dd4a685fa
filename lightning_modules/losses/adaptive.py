"""The weight that brings an adversarial loss to the size of a reconstruction loss (VQGAN, Esser et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

#: Added to the adversarial gradient's norm, and the largest weight, as in the authors' code.
EPSILON, LARGEST = 1e-4, 1e4


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, picture: Tensor, features: Tensor, layer: nn.Conv2d
) -> Tensor:
    """The ratio of both losses' gradients in the last layer, arXiv:2012.09841, eq. 7.

    These gradients are computed from those of the picture, so that nothing runs back through the network, and the
    layer's weights need not be there (ZeRO 3).

    Args:
        reconstruction, adversarial: scalars, functions of ``picture``.
        picture: [N, C, H, W], what ``layer`` made.
        features: [N, F, H, W], of which it made that.
        layer: the last layer, a convolution with stride 1.

    Returns:
        A scalar in [0, 10,000], without gradient.
    """
    norms = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, picture, retain_graph=True)
        norms.append(_weight_gradient(gradient, features, layer).norm())
    return (norms[0] / (norms[1] + EPSILON)).clamp(0, LARGEST)


def _weight_gradient(gradient: Tensor, features: Tensor, layer: nn.Conv2d) -> Tensor:
    shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
    with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
        inputs = features.detach().to(gradient.dtype)
        assert isinstance(layer.padding, tuple)
        return conv2d_weight(inputs, shape, gradient, padding=layer.padding)
