"""Does a generator remember its training pictures? Samples are held against pictures that it has never seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.neighbours import Nearest, shrunken
from launch.evaluation.shares import wilson

#: How many neighbours in the training set say how dense it is around a picture.
NEIGHBOURS = 50
#: Of held-out pictures, this share is called near; of samples not more than ``FLAGGED`` times as many may be.
NEAR, FLAGGED = 0.01, 5.0
#: Pictures in each row of the sheet.
COLUMNS = 8


@dataclass(frozen=True)
class Nearness:
    """How near samples are to the training pictures, in one space.

    Args:
        near: share of samples that are nearer, relative to their surroundings, than 99 of 100 held-out pictures (of
            fewer than 100: than all).
        low, high: its 95 % interval (Wilson 1927).
        distance, held_out_distance: medians of the distance to the nearest training picture.
        flagged: even ``low`` is more than five times what is to be expected of held-out pictures.
    """

    near: float
    low: float
    high: float
    distance: float
    held_out_distance: float
    flagged: bool


@dataclass(frozen=True)
class Memorisation:
    """What came out.

    Args:
        spaces: by name, ``pixels`` and that of the features.
        samples, held_out, training: numbers of pictures.
        sheet: [2 COLUMNS, C, H, W] in [-1, 1]: the samples that are most like a training picture, and that below each.
    """

    spaces: dict[str, Nearness]
    samples: int
    held_out: int
    training: int
    sheet: Tensor

    @property
    def flagged(self) -> bool:
        """Whether any space shows copies."""
        return any(space.flagged for space in self.spaces.values())

    def result(self) -> dict[str, object]:
        """All but the sheet, as plain data."""
        counts = {"samples": self.samples, "held_out": self.held_out, "training": self.training}
        return {"flagged": self.flagged, **{name: asdict(space) for name, space in self.spaces.items()}, **counts}


def memorisation(
    samples: Tensor,
    data: ShardData,
    features: Callable[[Tensor], Tensor],
    *,
    name: str = "features",
    limit: int | None = None,
    progress: Callable[[Iterable[Tensor], int], Iterable[Tensor]] = lambda batches, steps: batches,
) -> Memorisation:
    """Compares how near samples and held-out pictures are to the training pictures, in pixels and in features.

    Near is relative: the distance to the nearest training picture as a share of the mean distance to the nearest
    fifty. A smooth, average sample is near to many and not counted; a copy is near to one. What counts as near is set
    by held-out pictures, which cannot have been copied: 1 of 100 of them is. (After Carlini et al. 2023,
    arXiv:2301.13188, who divide in the same way, and Meehan et al. 2020, arXiv:2004.05675, who calibrate by held-out
    pictures.)

    Args:
        samples: uint8 [N, C, H, W].
        data: what the generator was trained on; its held-out split is what it was not.
        features: uint8 pictures [N, C, H, W] to float32 [N, D].
        name: of this space.
        limit: number of training pictures that are looked through, evenly spaced; None: all. Copies of others are
            missed.
        progress: wraps the batches of training pictures, whose number it is told.

    Raises:
        ValueError: the set has no held-out pictures.
    """
    real = data.reference_batches(compared_split(data), rank=0, world_size=1, batch_size=256, limit=len(samples))
    held_out = torch.cat(list(real))
    spaces: dict[str, Callable[[Tensor], Tensor]] = {"pixels": _pixels, name: features}
    both = {
        space: [Nearest(key(each), neighbours=NEIGHBOURS) for each in (samples, held_out)]
        for space, key in spaces.items()
    }
    count = min(limit or 10**12, data.manifest.split("train").samples)
    batches = data.reference_batches("train", rank=0, world_size=1, batch_size=256, limit=limit)
    for images in progress(batches, -(-count // 256)):
        for pictures in [images, images.flip(3)] if data.flip else [images]:
            for space, key in spaces.items():
                keys = key(pictures)
                for each in both[space]:
                    each.look(keys, pictures)
    found = {space: _nearness(*pair) for space, pair in both.items()}
    near = torch.stack([_relative(own) for own, _ in both.values()])
    worst = near.amin(0).argsort()[:COLUMNS]
    # Beside the training pictures of the space that has the nearest of all.
    own, _ = list(both.values())[int(near.amin(1).argmin())]
    return Memorisation(
        found, len(samples), len(held_out), count, to_float(torch.cat([samples[worst], own.pictures[worst, 0]]))
    )


def _relative(found: Nearest) -> Tensor:
    """The nearest one's distance as a share of the mean of the nearest fifty's: [N]; 1 where all are 0."""
    mean = found.distances.mean(1)
    return torch.where(mean > 0, found.distances[:, 0] / mean, torch.ones_like(mean))


def _nearness(own: Nearest, held_out: Nearest) -> Nearness:
    near = int((_relative(own) < _relative(held_out).quantile(NEAR)).sum())
    low, high = wilson(near, len(own.keys))
    return Nearness(
        near / len(own.keys),
        low,
        high,
        own.distances[:, 0].median().item(),
        held_out.distances[:, 0].median().item(),
        low > FLAGGED * max(NEAR, 1 / (1 + len(held_out.keys))),
    )


def _pixels(images: Tensor) -> Tensor:
    return shrunken(to_float(images))


def compared_split(data: ShardData) -> str:
    """The held-out split; raises a ValueError where there is none."""
    if data.held_out_split == "train":
        raise ValueError(f"{data.path} has no held-out split to compare with: build it with --splits 90/10")
    return data.held_out_split
