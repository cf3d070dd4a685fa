"""Flicker of a video: the warping error of Lai et al. (2018), "Learning Blind Video Temporal Consistency"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TemporalConsistency(Metric):
    """Flicker of a video: difference of each frame to the one before, warped by the motion.

    Only visible places count, and the motion is the content's, not that of the measured video. Values are in [0, 1].
    Lai et al. (2018) report the mean square; ``warped_psnr`` is that in decibels.

    - ``warping_error``: mean absolute difference.
    - ``warped_psnr``: -10 log10 of the mean square difference.

    States are sums: memory does not grow with the video, and several videos or ranks add up place by place.
    """

    full_state_update = False
    higher_is_better = False
    absolute: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("absolute", "square", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, carried: Tensor, now: Tensor, visible: Tensor) -> None:
        """Adds one pair of frames.

        Args:
            carried: the frame before, warped: ``warp(before, motion.flow)``; [1, C, H, W] in [-1, 1].
            now: the frame, [1, C, H, W] in [-1, 1].
            visible: [1, 1, H, W], 1 where they are compared: ``motion.visible``.
        """
        difference = (now - carried).float() / 2 * visible
        self.absolute += difference.abs().sum()
        self.square += difference.square().sum()
        self.count += visible.sum() * now.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Scalars; NaN when nothing could be compared."""
        return {
            "warping_error": (self.absolute / self.count).float(),
            "warped_psnr": (-10 * torch.log10(self.square / self.count)).float(),
        }
