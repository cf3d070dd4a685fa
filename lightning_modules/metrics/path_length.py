"""Perceptual path length: how far images change along a path of latents (Karras et al. 2019, arXiv:1812.04948).

PPL is E[d(G(t), G(t + epsilon)) / epsilon^2] over paths between two latents, with LPIPS (VGG16) as the distance d,
without the lowest and the highest percent of the distances. ``full``: t is anywhere on the path; ``end``: t = 0. As in
StyleGAN2-ADA's code the whole image counts (``ppl2_wend``), and images of 512 pixels or more are shrunken by a whole
factor to 256 or more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.randomness import mix_key
from lightning_modules.metrics.features import measuring
from lightning_modules.metrics.statistics import SumMetric

#: Images [N, C, H, W] about in [-1, 1] of paths ``[N]`` at times float64 ``[N]``; see ``Abilities.on_path``.
Walk = Callable[[Tensor, Tensor], Tensor]
#: Distance float32 [N] of images [N, 3, H, W].
Distance = Callable[[Tensor, Tensor], Tensor]
#: How much later the second image of a pair is.
EPSILON = 1e-4
#: Larger images are shrunken by a whole factor, to this side or more.
SIDE = 256


class PathLength(SumMetric):
    """Perceptual path length of a generator.

    A path and its time depend on (seed, index) alone: any number of ranks measures the same.

    Args:
        walk: makes the images.
        distance: LPIPS, of VGG16 if numbers are to be compared with others'.
        sampling: ``full`` or ``end``.
        num_samples: number of paths over all ranks.
        seed: of the times.
    """

    distances: Tensor
    counts: Tensor

    def __init__(
        self, walk: Walk, distance: Distance, sampling: Literal["full", "end"], *, num_samples: int, seed: int
    ) -> None:
        super().__init__()
        self.walk, self.sampling, self.seed = walk, sampling, seed
        # In a tuple it is no submodule of this metric, so it is in no checkpoint and no optimizer.
        self.networks = (distance,)
        #: Side in pixels at which images are compared; 0: there were none.
        self.side = 0
        self.add_sum("distances", num_samples)
        self.add_sum("counts", num_samples, dtype=torch.int64)

    def update(self, index: Tensor) -> None:
        """Follows the paths ``index``, int64 [N] in [0, ``num_samples``), distinct over all ranks; N may be 0."""
        if not len(index):
            return
        times = torch.zeros(len(index), dtype=torch.float64)
        if self.sampling == "full":
            times = torch.tensor(
                [mix_key(self.seed, number, 3) / 2**64 for number in index.tolist()], dtype=times.dtype
            )
        with measuring(self.device):
            near, far = (shrunken(self.walk(index, at)) for at in (times, times + EPSILON))
            self.side = near.shape[-1]
            found = self.networks[0](near, far).double() / EPSILON**2
        index = index.to(self.distances.device)
        self.distances.index_add_(0, index, found.to(index.device))
        self.counts.index_add_(0, index, torch.ones_like(index))

    def compute(self) -> float:
        """The mean over all ranks' paths, without the lowest and the highest percent.

        Raises:
            ValueError: there were no paths, or one came twice.
        """
        if not bool((self.counts == 1).any()) or int(self.counts.max()) > 1:
            raise ValueError("path length: each path is followed once, and there must be some")
        return trimmed_mean(self.distances[self.counts > 0]).item()


def trimmed_mean(values: Tensor) -> Tensor:
    """Mean of values [N] from the first to the 99th percentile, each the next value outwards."""
    low = torch.quantile(values, 0.01, interpolation="lower")
    high = torch.quantile(values, 0.99, interpolation="higher")
    return values[(values >= low) & (values <= high)].mean()


def shrunken(images: Tensor) -> Tensor:
    """Images [N, C, H, W] with three channels, as LPIPS gets them: shrunken by a whole factor if 512 or larger."""
    factor = min(images.shape[2:]) // SIDE
    if factor > 1:
        images = F.avg_pool2d(images, factor)
    return images.float().expand(-1, 3, -1, -1)
