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
    found = Nearest(shrunken(samples), neighbours=nearest, shown=nearest)
    for images in data.reference_batches("train", rank=0, world_size=1, batch_size=256, limit=limit):
        pictures = to_float(images)
        found.look(shrunken(pictures), pictures)
    return torch.cat([samples, *found.pictures.transpose(0, 1)])


class Nearest:
    """For each of some vectors the nearest ones among many that come in batches, and the pictures that those are of.

    Args:
        keys: float32 [N, D], the vectors.
        neighbours: number of distances that are kept.
        shown: number of pictures that are kept, at most as many.

    Attributes:
        distances: Euclidean, [N, at most neighbours], rising.
        pictures: of the first of them, [N, at most shown, C, H, W]; there are none before the first batch.
    """

    def __init__(self, keys: Tensor, *, neighbours: int, shown: int = 1) -> None:
        self.keys, self.neighbours, self.shown = keys, neighbours, shown
        self.distances = keys.new_empty(len(keys), 0)
        self.pictures = keys.new_empty(len(keys), 0)

    def look(self, keys: Tensor, pictures: Tensor) -> None:
        """Takes a batch: vectors [B, D] and their pictures [B, C, H, W]."""
        known = self.distances.shape[1]
        # Not as a product of matrices, in whose rounding a copy is at no distance of 0.
        found = torch.cdist(self.keys, keys, compute_mode="donot_use_mm_for_euclid_dist")
        distances, order = torch.cat([self.distances, found], 1).sort(stable=True, dim=1)
        self.distances, first = distances[:, : self.neighbours], order[:, : self.shown]
        chosen = pictures[(first - known).clamp_min(0)]
        if known:
            kept = self.pictures[torch.arange(len(first))[:, None], first.clamp_max(self.pictures.shape[1] - 1)]
            chosen = torch.where((first < known)[..., None, None, None], kept, chosen)
        self.pictures = chosen


def shrunken(pictures: Tensor) -> Tensor:
    """Pictures [N, C, H, W] as vectors [N, D] of at most 32 x 32 pixels each, to compare them by."""
    if max(pictures.shape[2:]) > SIDE:
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="area")
    return pictures.flatten(1)
