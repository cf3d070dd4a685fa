"""What gesso's table of metrics says of ours; imports no torch, since every command line reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_modules.metrics.specs import MetricSpec, Quantity

if TYPE_CHECKING:
    from torchmetrics import Metric


def sharpness() -> Metric:
    from mean_teacher.sharpness import Sharpness

    return Sharpness()


SHARPNESS = MetricSpec(
    "sharpness",
    "mean magnitude of the Laplacian: higher is sharper, or noisier",
    ("generation",),
    (Quantity("sharpness", "Sharpness", "max", (0.0, 4.0)),),
    make=sharpness,
)
