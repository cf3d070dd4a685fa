"""Samples of any checkpoint, made when a page asks for them."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_modules.core.family import ImageFamily

#: Networks that are kept for the next question, and pictures in a grid.
KEPT, MOST = 2, 64


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Args:
        num: how many pictures, 1 to ``MOST``.
        seed: of their noise.
        label: their class; None: one after the other.
        average: with the averaged weights, where there are any.

    Raises:
        ValueError: a number is out of its range.
    """

    num: int = 16
    seed: int = 0
    label: int | None = None
    average: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.num <= MOST:
            raise ValueError(f"num is {self.num}; it must be from 1 to {MOST}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more, and below 2^63")


class Sampler:
    """Makes samples of checkpoints, one grid at a time; torch is imported with the first one.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._kept: OrderedDict[tuple[Path, int, bool], ImageFamily] = OrderedDict()
        self._busy = threading.Lock()

    def grid(self, checkpoint: Path, wanted: Wanted) -> bytes:
        """A PNG of what ``gesso generate CHECKPOINT --num --seed --label`` makes.

        Raises:
            ValueError, FileNotFoundError: the checkpoint is damaged, or its family makes no samples or has no such
                class; one line.
        """
        import torch

        from launch.inference.pictures import image_grid, pil_image

        with self._busy, torch.inference_mode():
            module = self._family(checkpoint, average=wanted.average)
            module.require("generate")
            index, labels = torch.arange(wanted.num), None
            if wanted.label is not None:
                classes = module.batch_spec().num_classes
                if not 0 <= wanted.label < classes:
                    has = f"has classes 0 to {classes - 1}" if classes else "has no classes"
                    raise ValueError(f"label is {wanted.label}; {module.described()} {has}")
                labels = torch.full((wanted.num,), wanted.label)
            pixels = image_grid(module.generate(index, seed=wanted.seed, labels=labels).cpu())
        stream = io.BytesIO()
        pil_image(pixels).save(stream, "PNG")
        return stream.getvalue()

    def _family(self, checkpoint: Path, *, average: bool) -> ImageFamily:
        from launch.checkpoints.files import MARKER
        from launch.inference.loading import load_family
        from launch.training.hardware import best_device

        path = checkpoint.resolve()
        # A run that goes on from an earlier checkpoint writes the later ones anew.
        key = (path, (path / MARKER).stat().st_mtime_ns, average)
        if key not in self._kept:
            self._kept[key], _ = load_family(checkpoint, average=average, device=best_device(self._device))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
