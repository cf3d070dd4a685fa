"""A trained family out of a run or a checkpoint, ready to generate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gesso.common.randomness import keeping_generators
from launch.checkpoints import layout
from launch.checkpoints.export import SUFFIX, rebuild
from launch.checkpoints.files import older_one_named, older_ones
from launch.runs.folder import find_checkpoint
from launch.training.family_files import load_weights
from lightning_modules.catalogue import family
from lightning_modules.core.averages import MAIN
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.saved import saved_averages


def load_family(
    path: str | os.PathLike[str], *, average: bool = True, device: str | torch.device = "cpu"
) -> tuple[ImageFamily, dict[str, Any]]:
    """The family in a run (its last checkpoint), in a checkpoint or in an exported file, in eval mode.

    Args:
        path: run folder, checkpoint, or what ``gesso checkpoint export`` wrote.
        average: with the EMA weights, where there are any, instead of the raw ones.

    Returns:
        The module, and where it comes from: ``path``, ``images_seen``, ``average``.

    Raises:
        ValueError, FileNotFoundError: there is none, it is damaged, or an exported average holds no raw weights.
    """
    # Networks are made with random weights before they get their own.
    with keeping_generators():
        module, averaged, file = _load(Path(path), average=average)
    load_weights(module)
    load_autoencoder(module)
    module.requires_grad_(False)
    module.eval().to(device)
    return module, {"path": str(file), "images_seen": module.images_seen, "average": averaged}


def load_autoencoder(module: ImageFamily) -> None:
    """Gives a family of latents the autoencoder that decodes them, with its averaged weights.

    A run that was trained further since has it in an earlier checkpoint, if that was kept.

    Raises:
        ValueError, FileNotFoundError: there is none, or it is another one; names the run.
    """
    option = "latents.autoencoder"
    if not (path := module.autoencoder_run()):
        return
    try:
        hand_over(option, path, module.take_autoencoder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; if it was moved, put a link in its place: ln -s NEW_PLACE {path}") from error
    except ValueError:
        for earlier in older_ones(Path(path)):
            with contextlib.suppress(ValueError, FileNotFoundError):
                return hand_over(option, str(earlier), module.take_autoencoder)
        raise


def hand_over(option: str, path: str, take: Callable[[ImageFamily], None]) -> None:
    """Loads the run that a family's option names, with its averaged weights, and calls ``take`` with it.

    Raises:
        ValueError, FileNotFoundError: there is none, or ``take`` refuses it; names the option.
    """
    try:
        other, _ = load_family(path)
        take(other)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"--model.{option} {path}: {str(error).removeprefix(f'{path}: ')}") from error


def _load(file: Path, *, average: bool) -> tuple[ImageFamily, bool, Path]:
    if file.suffix == SUFFIX:
        module, averaged = rebuild(file)
        if averaged and not average:
            raise ValueError(
                f"{file}: holds averaged weights alone, no raw ones: leave --raw (average=False) out, or export the "
                "run again with `gesso checkpoint export RUN OUT.safetensors --raw`"
            )
        _check_finite(module, file)
    else:
        file = find_checkpoint(file)
        with older_one_named(file):
            module, averaged = _restore(layout.read(file), average=average)
            _check_finite(module, file)
    return module, averaged, file


def _check_finite(module: ImageFamily, file: Path) -> None:
    for network in module.generating_networks():
        for name, tensor in getattr(module, network).state_dict().items():
            if tensor.is_floating_point() and (broken := int((~tensor.isfinite()).sum())):
                raise ValueError(
                    f"{file}: {broken:,} weights of {network}.{name} are infinite or no numbers: its training has "
                    "diverged, or the file is damaged"
                )


def _restore(checkpoint: dict[str, Any], *, average: bool) -> tuple[ImageFamily, bool]:
    try:
        module = family(checkpoint["gesso"]["family"]).from_options(checkpoint["hyper_parameters"])
        averages = saved_averages(checkpoint).get(MAIN, {}) if average else {}
        module.load_state_dict({**checkpoint["state_dict"], **averages})
        module.images_seen = checkpoint["gesso"]["images_seen"]
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"not a gesso checkpoint ({type(error).__name__}: {error})") from error
    return module, bool(averages)
