"""Places of feature maps as points on a sphere, where a contrastive loss compares them (CUT, Park et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.initialization import init_xavier_
from lightning_modules.networks.precision import in_full_precision, like_weights

#: Added to a length before something is divided by it.
SMALLEST_LENGTH = 1e-7


class PatchProjection(nn.Module):
    """For each of several maps an MLP of its own, channels - width - width with a ReLU, then length 1.

    The authors' code makes these at the first forward pass; here they are declared, as optimizers and checkpoints want.

    Args:
        channels: of each map.
        width: of the MLPs' hidden layer and output.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)) for count in channels
        )
        init_xavier_(self)

    def forward(self, maps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Projects some places of each map.

        Args:
            maps: of each MLP, [N, C, h, w].
            places: int64 [N, S] for each map, each in [0, h w): row after row. S may differ from map to map.

        Returns:
            For each map [N, S, width], float32 or better, each vector of length 1.
        """
        return [self._project(*pair) for pair in zip(self.mlps, maps, places, strict=True)]

    def _project(self, mlp: nn.Module, x: Tensor, places: Tensor) -> Tensor:
        rows = x.flatten(2).gather(2, places[:, None].expand(-1, x.shape[1], -1)).mT
        projected = in_full_precision(mlp(like_weights(rows, self)))
        with torch.autocast(x.device.type, enabled=False):
            lengths = torch.linalg.vector_norm(projected, dim=2, keepdim=True)
            return projected / (lengths + SMALLEST_LENGTH)
