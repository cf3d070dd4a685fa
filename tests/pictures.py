"""Real photographs and paintings for tests of style transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    from datamodules.assets.fetching import fetch

    files = sorted(path for path in fetch("terminal_museum", progress=False).rglob("*") if path.suffix in SUFFIXES)
    return torch.cat([picture(Image.open(file), side) for file in files[:: len(files) // count][:count]])


def style_folder(folder: Path) -> Path:
    """Fills a folder: shards/ of photographs at 48 px, paintings wheat.png and water.png, and photo.png."""
    from gesso.cli.main import main
    from gesso.common.pixels import to_uint8

    (folder / "photographs").mkdir()
    for number, image in enumerate(to_uint8(photographs(96))):
        for part in range(4):
            top, left = divmod(part, 2)
            crop = image[:, 32 * top : 32 * top + 64, 32 * left : 32 * left + 64]
            Image.fromarray(crop.permute(1, 2, 0).numpy()).save(folder / "photographs" / f"{number}-{part}.png")
    for name, image in zip(("wheat", "water"), to_uint8(paintings(64)), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    Image.open(folder / "photographs" / "0-0.png").save(folder / "photo.png")
    assert main(["shards", "build", str(folder / "photographs"), str(folder / "shards"), "--size", "48"]) == 0
    return folder


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def picture(image: Image.Image, side: int) -> Tensor:
    """The largest centred square of an image, resized: [1, 3, side, side] in [-1, 1]."""
    image = image.convert("RGB")
    edge = min(image.size)
    left, top = ((size - edge) // 2 for size in image.size)
    square = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def scikit_ssim(images: Tensor, others: Tensor) -> float:
    """Mean SSIM by scikit-image of grey pictures float64 [N, H, W] in [0, 1], with the settings of Wang et al. 2004."""
    from skimage.metrics import structural_similarity

    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(images.numpy(), others.numpy(), strict=True)
    values = [float(structural_similarity(one, other, data_range=1.0, **options)) for one, other in pairs]
    return sum(values) / len(values)
