"""What happens to pictures on their way through the world: JPEG, blur, another size and back."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

#: uint8 [N, C, H, W] to the same shape and kind.
Attack = Callable[[Tensor], Tensor]
#: The ranges that ``random_attacks`` draws from: JPEG's quality, blur's sigma in pixels, the size as a share.
QUALITIES, SIGMAS, SHARES = (50, 95), (0.3, 1.5), (0.5, 1.0)
#: Of pictures in training, this share stays as it is.
UNCHANGED = 0.4


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Each picture saved as JPEG (colours at half size, as is usual) and read again."""
    out = torch.empty_like(images)
    for number, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        stream = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(stream, "JPEG", quality=quality)
        pixels = np.array(Image.open(stream)).reshape(image.shape)
        out[number] = torch.from_numpy(pixels).permute(2, 0, 1)
    return out


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian of ``sigma`` pixels, cut off at 4 ``sigma``; the border is mirrored."""
    reach = min(int(4 * sigma + 0.5), min(images.shape[2:]) - 1)
    if not reach:
        return images
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    kernel = (-0.5 * (places / sigma).square()).exp()
    channels = images.shape[1]
    across = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    x = F.pad(images.float(), (reach, reach, reach, reach), mode="reflect")
    x = F.conv2d(F.conv2d(x, across, groups=channels), across.transpose(2, 3), groups=channels)
    return _rounded(x)


def resize(images: Tensor, share: float) -> Tensor:
    """Made smaller by a triangle filter, as Pillow does, and bilinearly as large as before."""
    sides = list(images.shape[2:])
    small = [max(1, round(side * share)) for side in sides]
    if small == sides:
        return images
    x = _rounded(F.interpolate(images.float(), small, mode="bilinear", antialias=True))
    return _rounded(F.interpolate(x.float(), sides, mode="bilinear", antialias=True))


#: What a detector is tested by.
ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "jpeg-75": lambda images: jpeg(images, 75),
        "blur-1.0": lambda images: blur(images, 1.0),
        "resize-0.5": lambda images: resize(images, 0.5),
    }
)


def random_attacks(images: Tensor, generator: torch.Generator) -> Tensor:
    """Two of five pictures as they are, one in five each through JPEG, blur and another size, of one strength a batch.

    Args:
        images: uint8 [N, C, H, W].
        generator: of the CPU.
    """
    chosen = torch.rand(len(images), generator=generator)
    strengths = torch.rand(3, generator=generator).tolist()
    quality, sigma, share = (
        low + (high - low) * drawn for (low, high), drawn in zip((QUALITIES, SIGMAS, SHARES), strengths, strict=True)
    )
    attacks: list[Attack] = [
        lambda some: jpeg(some, round(quality)),
        lambda some: blur(some, sigma),
        lambda some: resize(some, share),
    ]
    out = images.clone()
    for number, attack in enumerate(attacks):
        low = UNCHANGED + (1 - UNCHANGED) * number / len(attacks)
        high = UNCHANGED + (1 - UNCHANGED) * (number + 1) / len(attacks)
        which = ((chosen >= low) & (chosen < high)).nonzero()[:, 0]
        if len(which):
            out[which] = attack(images[which])
    return out


def _rounded(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
