"""Real photographs and paintings for tests of style transfer."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def photographs(side: int) -> Tensor:
    """Three photographs that scikit-image brings: [3, 3, side, side] in [-1, 1]."""
    from skimage import data

    return torch.cat([picture(Image.fromarray(image()), side) for image in (data.astronaut, data.coffee, data.chelsea)])


def paintings(side: int, count: int = 2) -> Tensor:
    """Public-domain paintings: [count, 3, side, side] in [-1, 1]."""
    from datamodules.assets import fetch

    files = sorted(path for path in fetch("terminal_museum", progress=False).rglob("*") if path.suffix in SUFFIXES)
    return torch.cat([picture(Image.open(file), side) for file in files[:: len(files) // count][:count]])


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def picture(image: Image.Image, side: int) -> Tensor:
    """The largest centred square of an image, resized: [1, 3, side, side] in [-1, 1]."""
    image = image.convert("RGB")
    edge = min(image.size)
    left, top = ((size - edge) // 2 for size in image.size)
    square = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
