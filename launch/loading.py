"""A trained family out of a run or a checkpoint, ready to generate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from launch.callbacks.ema import EMA
from launch.runs import find_checkpoint
from lightning_modules import family
from lightning_modules.base import ImageFamily


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; no pickle in it is executed.

    Raises:
        ValueError: it is no gesso checkpoint, or damaged.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise ValueError(f"{path}: not a readable checkpoint ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(checkpoint, dict) or "gesso" not in checkpoint:
        raise ValueError(f"{path}: not a gesso checkpoint; `gesso fit` writes them under runs/NAME/checkpoints/")
    return checkpoint


def load_family(
    path: str | os.PathLike[str], *, average: bool = True, device: str | torch.device = "cpu"
) -> tuple[ImageFamily, dict[str, Any]]:
    """The family in a run (its last checkpoint) or in a checkpoint file, in eval mode.

    Args:
        path: run folder or checkpoint.
        average: with the EMA weights, where there are any, instead of the raw ones.

    Returns:
        The module, and where it comes from: ``path``, ``images_seen``, ``average``.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    hyper_parameters = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
    module = family(checkpoint["gesso"]["family"])(**hyper_parameters)
    averages = checkpoint.get("callbacks", {}).get(EMA.__qualname__, {}).get("average", {}) if average else {}
    module.load_state_dict({**checkpoint["state_dict"], **averages})
    module.images_seen = checkpoint["gesso"]["images_seen"]
    module.requires_grad_(False)
    module.eval().to(device)
    return module, {"path": str(file), "images_seen": module.images_seen, "average": bool(averages)}


def best_device(name: str = "auto") -> torch.device:
    """``auto``: a GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
