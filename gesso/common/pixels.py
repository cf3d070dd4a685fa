"""Pixel values: float32 in [-1, 1] inside the system, uint8 at its edges; and the weights of luma."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: Luma of RGB as in ITU-R BT.601: what "grey" means to JPEG, PIL, torchvision and NTSC's YIQ.
LUMA = (0.299, 0.587, 0.114)

#: What networks without a last bound make lies a little beyond [-1, 1]; what lies farther is of another range.
FARTHEST = 2.0


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] of any shape to uint8 in [0, 255]: rounded, clamped, NaN black; uint8 stays as it is.

    Raises:
        ValueError: they are of another kind of whole numbers, which says nothing of their range.
    """
    import torch

    if images.dtype == torch.uint8:
        return images
    check_kind(images)
    return images.detach().float().add(1).mul_(127.5).round_().nan_to_num_(nan=0.0).clamp_(0, 255).to(torch.uint8)


def check_kind(images: Tensor) -> None:
    """Checks that pixels are float or uint8.

    Raises:
        ValueError: they are of another kind.
    """
    import torch

    if images.dtype != torch.uint8 and not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise ValueError(f"images of {kind}: they are uint8 in [0, 255], or float in [-1, 1]; convert them with .to()")


def check_values(images: Tensor, what: str) -> None:
    """Checks that pixels that somebody passes are ours: float in [-1, 1], or a little beyond, or uint8.

    Args:
        images: of any shape.
        what: they are, for the error: ``a picture``.

    Raises:
        ValueError: there are none, they are of another kind, no numbers, or in another range.
    """
    check_kind(images)
    if not images.numel():
        raise ValueError(f"{what} of the shape {list(images.shape)} has no pixels")
    if not images.is_floating_point():
        return
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{what} holds NaN or infinite values")
    if max(-low, high) > FARTHEST:
        raise ValueError(
            f"{what} holds values from {low:g} to {high:g}: float images lie in [-1, 1], uint8 in [0, 255]"
        )


def to_float(images: Tensor) -> Tensor:
    """uint8 images of any shape to float32 in [-1, 1]; ``to_uint8`` gives the same bytes back."""
    return images.float().div_(127.5).sub_(1)
