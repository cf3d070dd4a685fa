"""The gate that an export has to pass: it is compared with its run, through the written file, on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.core.deployment import Deployable, Inputs
from lightning_modules.metrics.similarity import SourceSimilarity

#: What a file gives for inputs.
Runner = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Figures:
    """How far an export is from its run.

    Args:
        samples: number of pictures (or other results) that were compared.
        difference: the largest of two numbers, relative to the run's largest where that is above 1.
        similarity: ``psnr`` in dB, and ``lpips/...`` where it was measured; empty: the results are no pictures.
        fid: FID's full name, that of the run's samples, and of the export's; None: it was not measured.
    """

    samples: int
    difference: float
    similarity: dict[str, float]
    fid: tuple[str, float, float] | None = None

    def __str__(self) -> str:
        parts = [f"largest difference {self.difference:.1e}"]
        parts += [f"{name} {value:.4g}{' dB' if name == 'psnr' else ''}" for name, value in self.similarity.items()]
        text = f"{', '.join(parts)} of {self.samples} samples"
        return text if self.fid is None else f"{text}; {self.fid[0]} {self.fid[2]:.4g} instead of {self.fid[1]:.4g}"


@torch.no_grad()
def compare(
    deployable: Deployable, runner: Runner, inputs: Iterable[Inputs], similarity: SourceSimilarity | None
) -> Figures:
    """Compares what a file gives with what the run gives.

    Args:
        deployable: the run.
        runner: the file.
        inputs: what both get.
        similarity: measures pictures; reset before.

    Raises:
        ValueError: shapes differ, or the file gives what is no number.
    """
    samples, difference = 0, 0.0
    if similarity is not None:
        similarity.reset()
    for one in inputs:
        expected, found = deployable.run(one).float().cpu(), runner(one).float()
        if expected.shape != found.shape:
            raise ValueError(f"the export gives {list(found.shape)}, the run {list(expected.shape)}")
        if not bool(found.isfinite().all()):
            raise ValueError("the export gives what is no number")
        largest = max(1.0, float(expected.abs().max()))
        difference = max(difference, float((expected - found).abs().max()) / largest)
        samples += len(found)
        if similarity is not None:
            similarity.update(expected, found)
    if not samples:
        raise ValueError("nothing was compared: --check is 1 or more")
    return Figures(samples, difference, {} if similarity is None else similarity.compute())


def check(figures: Figures, *, tolerance: float | None, max_lpips: float | None) -> None:
    """Refuses an export that is too far from its run.

    Args:
        figures: of ``compare``.
        tolerance: largest difference; None: any.
        max_lpips: largest LPIPS; None: any.

    Raises:
        ValueError: it is; one line with the figure and its bound.
    """
    # A comparison with NaN is never true.
    if tolerance is not None and not figures.difference <= tolerance:
        raise ValueError(f"the export is not the run: {figures}; {tolerance:g} at most is allowed")
    if max_lpips is None:
        return
    name, value = next(
        ((name, value) for name, value in figures.similarity.items() if name.startswith("lpips")), ("lpips", math.nan)
    )
    if not value <= max_lpips:
        raise ValueError(f"the export is too far from the run: {figures}; {name} may be {max_lpips:g} (--max-lpips)")


def check_fid(figures: Figures, largest: float) -> None:
    """Refuses an export whose FID differs from its run's by more than ``largest``; raises like ``check``."""
    assert figures.fid is not None
    name, ours, theirs = figures.fid
    if not abs(theirs - ours) <= largest:
        raise ValueError(
            f"the export is too far from the run: {name} {theirs:.4g} instead of {ours:.4g}; it may "
            f"change by {largest:g} (--max-fid-change)"
        )
