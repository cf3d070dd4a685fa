"""Pixel values: float32 in [-1, 1] inside the system, uint8 at its edges; and the weights of luma."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: Luma of RGB as in ITU-R BT.601: what "grey" means to JPEG, PIL, torchvision and NTSC's YIQ.
LUMA = (0.299, 0.587, 0.114)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] of any shape to uint8 in [0, 255]: rounded, clamped, NaN black; uint8 stays as it is."""
    import torch

    if images.dtype == torch.uint8:
        return images
    return images.detach().float().add(1).mul_(127.5).round_().nan_to_num_(nan=0.0).clamp_(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """uint8 images of any shape to float32 in [-1, 1]; ``to_uint8`` gives the same bytes back."""
    return images.float().div_(127.5).sub_(1)
