"""The training pictures nearest to a few samples: does the network make pictures, or remember them?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shards import ShardData
from gesso.common.pixels import to_float

#: So many training pictures are looked through, evenly spaced over the set.
LOOKED_THROUGH = 10_000
#: Pictures are compared at this side in pixels, so that a shift by a pixel or noise does not count.
SIDE = 32


def nearest_pictures(samples: Tensor, data: ShardData, *, nearest: int = 3, limit: int = LOOKED_THROUGH) -> Tensor:
    """Samples and, below each, the training pictures nearest to it by mean squared difference of shrunken pixels.

    Args:
        samples: [N, C, H, W] in [-1, 1].
        data: what the family was trained on; pictures come centred, as the network sees them without augmentation.
        nearest: how many for each sample.
        limit: how many training pictures are looked through.

    Returns:
        [(1 + nearest) N, C, H, W] in [-1, 1] on the CPU: all samples, then the nearest of each, the second nearest ...
    """
    samples = samples.float().cpu()
    keys = shrunken(samples)
    distances = torch.full((len(samples), 0), 0.0)
    found = samples.new_empty(len(samples), 0, *samples.shape[1:])
    for images in data.reference_batches("train", rank=0, world_size=1, batch_size=256, limit=limit):
        pictures = to_float(images)
        distances = torch.cat([distances, torch.cdist(keys, shrunken(pictures))], dim=1)
        candidates = torch.cat([found, pictures.expand(len(samples), *pictures.shape)], dim=1)
        distances, order = distances.topk(min(nearest, distances.shape[1]), largest=False)
        found = torch.stack([pool[chosen] for pool, chosen in zip(candidates, order, strict=True)])
    return torch.cat([samples, *found.transpose(0, 1)])


def shrunken(pictures: Tensor) -> Tensor:
    """Pictures [N, C, H, W] as vectors [N, D] of at most 32 x 32 pixels each, to compare them by."""
    if max(pictures.shape[2:]) > SIDE:
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="area")
    return pictures.flatten(1)
