"""Diversity of a generator's samples: how far apart they look, beside pictures that are real."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_modules.metrics.features import measuring
from lightning_modules.metrics.path_length import Distance, Walk, shrunken
from lightning_modules.metrics.statistics import SumMetric

#: How far along the path between two random latents the close one is.
CLOSE = 0.1
#: Pairs are looked at, however many samples there are; and so many held-out pictures.
PAIRS, REAL = 256, 64
#: Below this share of the held-out pictures' diversity, samples are said to collapse.
COLLAPSED = 0.5


class Diversity(SumMetric):
    """Mean LPIPS between samples of random latents of one class, of close ones, and between held-out pictures.

    Args:
        walk: makes the samples, on paths in Z: of path i at time 0 and 1 those of two random latents.
        distance: LPIPS.
    """

    sums: Tensor
    count: Tensor

    def __init__(self, walk: Walk, distance: Distance) -> None:
        super().__init__()
        self.walk = walk
        # In a tuple it is no submodule of this metric, so it is in no checkpoint and no optimizer.
        self.networks = (distance,)
        self.real = float("nan")
        self.add_sum("sums", 2)
        self.add_sum("count", dtype=torch.int64)

    def begin(self, held_out: Mapping[str, Tensor]) -> None:
        """Measures held-out pictures: ``image`` [N, C, H, W] in [-1, 1], and ``label`` if there are classes.

        Each is compared with the next one of the same class, as far as there is one.
        """
        images = held_out["image"]
        labels = held_out.get("label")
        if labels is not None:
            images = images[labels.argsort(stable=True).to(images.device)]
        pairs = len(images) // 2
        if pairs:
            distances = self._distances(images[0 : 2 * pairs : 2], images[1 : 2 * pairs : 2])
            self.real = distances.mean().item()

    def update(self, index: Tensor) -> None:
        """Makes and compares the samples of the paths ``index``, int64 [N], up to number ``PAIRS``."""
        index = index[index < PAIRS]
        if not len(index):
            return
        with measuring(self.device):
            times = torch.zeros(len(index), dtype=torch.float64)
            start, close, end = (self.walk(index, times + at).clamp(-1, 1) for at in (0.0, CLOSE, 1.0))
        self.sums += torch.stack([self._distances(start, other).sum() for other in (end, close)])
        self.count += len(index)

    def compute(self) -> dict[str, float]:
        """``diversity``, ``diversity_close`` and ``diversity_real`` (nan: no pictures) over all ranks."""
        random, close = (self.sums / self.count).tolist()
        return {"diversity": random, "diversity_close": close, "diversity_real": self.real}

    def _distances(self, ours: Tensor, theirs: Tensor) -> Tensor:
        with measuring(self.device):
            return self.networks[0](shrunken(ours), shrunken(theirs)).double()


def collapse(scores: Mapping[str, float]) -> str | None:
    """A warning if samples are far less diverse than held-out pictures, with what helps; None if they are not.

    Args:
        scores: metrics by full name; without ``diversity`` nothing is said.
    """
    found = {name.partition("/")[0]: value for name, value in scores.items() if name.startswith("diversity")}
    made, real = found.get("diversity", float("nan")), found.get("diversity_real", float("nan"))
    if not made < COLLAPSED * real:
        return None
    return (
        f"samples look alike: LPIPS between them is {made:.3f}, between held-out pictures {real:.3f}. A GAN that "
        "collapses so goes on better from an earlier checkpoint (--checkpoint) with a higher model.r1_gamma, a larger "
        "batch, lower learning rates, or, of fewer than 100,000 pictures, with model.augmentation.transforms bgc"
    )
