"""Temporal consistency of a style family on video."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_modules.kinds.stylizer import Style, Stylizer
from lightning_modules.pictures.smoothing import TemporalSmoother


@torch.no_grad()
def temporal_consistency(stylizer: Stylizer, style: Style, device: torch.device, video: Path) -> dict[str, float]:
    """Measures the ``TemporalConsistency`` of a stylised video."""
    from launch.inference.video import VideoReader  # of all evaluations, only this one needs FFmpeg

    # Nothing is smoothed: the network is to be measured.
    smoother = TemporalSmoother(0)
    with VideoReader(video) as reader:
        for frame in reader.frames():
            smoother(frame.picture, stylizer.stylize(frame.picture.to(device), style))
    return {name: value.item() for name, value in smoother.raw.compute().items()}
