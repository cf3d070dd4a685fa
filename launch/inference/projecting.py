"""Projects a picture into a trained generator's space W."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.assets.fetching import fetch
from launch.inference.w_editing import pictures_of
from lightning_modules.core.family import ImageFamily
from lightning_modules.latents.projection import Distance, Progress, ProjectionOptions, project
from lightning_modules.networks.lpips import LPIPS

#: Pictures are compared at this side in pixels or less, and enlarged to this one or more.
LARGEST, SMALLEST = 256, 64


class Projected(NamedTuple):
    """What was found for a picture.

    Args:
        picture: of the latents, [1, C, H, W] in [-1, 1], on the CPU.
        ws: the latents, [1, num_ws, w_dim].
        distance: LPIPS (VGG16) between the picture that was given and this one.
    """

    picture: Tensor
    ws: Tensor
    distance: float


def project_picture(
    module: ImageFamily,
    target: Tensor,
    options: ProjectionOptions,
    *,
    seed: int = 0,
    label: Tensor | None = None,
    progress: Progress = lambda done, distances: None,
) -> Projected:
    """Projects a picture.

    Args:
        module: the family.
        target: [1, C, H, W] in [-1, 1], as ``editing.read_to_edit`` reads it.
        options: see ``ProjectionOptions``.
        seed: of the noise.
        label: int64 [1]: the class to begin with; None: the mean of all.
        progress: see ``projection.project``.

    Raises:
        CannotDo: the family has no W.
    """
    space = module.w_space()
    target = target.to(module.device)
    lpips = LPIPS(fetch("vgg16_lpips")).to(module.device)
    distance = perceptual_distance(lpips, target)
    ws = project(space, distance, 1, options, seed=seed, labels=label, progress=progress)
    with torch.no_grad():
        picture = pictures_of(space, ws)
        return Projected(picture, ws, float(distance(picture.to(module.device))))


def perceptual_distance(lpips: LPIPS, target: Tensor) -> Distance:
    """LPIPS to targets [N, C, H, W] in [-1, 1] that stay the same.

    Larger pictures are averaged down to 256 pixels, as StyleGAN2's authors do; small ones are enlarged by a whole
    factor to 64 or more, since nothing of them would be left for the network's last layers.
    """
    distances = lpips.to_targets(for_network(target))
    return lambda images: distances(for_network(images))


def for_network(images: Tensor) -> Tensor:
    """Images [N, 1 or 3, H, W] as RGB at a side that suits LPIPS: see ``perceptual_distance``."""
    side = images.shape[-1]
    if side > LARGEST:
        images = F.interpolate(images, (LARGEST, LARGEST), mode="area")
    elif side < SMALLEST:
        images = F.interpolate(images, scale_factor=-(-SMALLEST // side), mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1)
