"""How sharp pictures are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Sharpness(Metric):
    """Mean magnitude of the Laplacian of pictures whose values go from 0 to 1: from 0 (one colour) to 4."""

    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Summed over all ranks before `compute`.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor, index: Tensor) -> None:
        """Takes pictures, uint8 [N, C, H, W]."""
        x = images.float() / 255
        around = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
        laplacian = around - 4 * x[:, :, 1:-1, 1:-1]
        self.total += laplacian.abs().sum()
        self.count += laplacian.numel()

    def compute(self) -> Tensor:
        return self.total / self.count
