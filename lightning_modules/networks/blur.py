"""Gaussian blur of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.precision import in_full_precision


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images [N, C, H, W] blurred, with zeros around them, like StyleGAN's training blurs them.

    The kernel is 2^(-(x / sigma)^2), cut off at 3 ``sigma``; under a third of a pixel nothing is left of it.

    Args:
        images: of any range.
        sigma: in pixels, 0 or more.
    """
    reach = int(3 * sigma)
    if not reach:
        return images
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernel = (-(places / sigma).square()).exp2()
    kernel = (kernel / kernel.sum()).to(in_full_precision(images).dtype)
    channels = images.shape[1]
    across = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    with torch.autocast(images.device.type, enabled=False):
        x = F.conv2d(in_full_precision(images), across, padding=(0, reach), groups=channels)
        return F.conv2d(x, across.transpose(2, 3), padding=(reach, 0), groups=channels)
