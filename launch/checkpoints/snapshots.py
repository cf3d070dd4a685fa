"""Snapshots of power-function averages, and the average of any width that they give afterwards (EDM2, appendix C).

A file a moment, ``averages/000000200000.safetensors``: whole tensors, by ``WIDTH:NAME IN THE MODULE`` if they are
averaged and ``copied:NAME IN THE MODULE`` if not (counters, spectral norm's vectors).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from gesso.common.files import writing_whole
from launch.checkpoints.tensors import save_tensors
from launch.runs.folder import at_images
from lightning_modules.core.profiles import Power, reconstruction

COPIED = "copied"


def write(
    folder: Path, averages: Mapping[float, Mapping[str, Tensor]], copied: Collection[str], *, images_seen: int
) -> Path:
    """Writes the averages of one moment, of all widths, into one file; returns it.

    Args:
        folder: the run's ``averages/``.
        averages: whole tensors of each width, by their names in the module.
        copied: names of the tensors that are no averages.
        images_seen: the moment.

    Raises:
        OSError: it cannot be written; names the file.
    """
    file = folder / f"{at_images(images_seen)}.safetensors"
    tensors = {
        f"{COPIED if name in copied else repr(width)}:{name}": tensor.detach().cpu().contiguous()
        for width, average in averages.items()
        for name, tensor in average.items()
    }
    with writing_whole(file) as partial:
        save_tensors(tensors, partial)
    return file


def moments(folder: Path) -> dict[int, Path]:
    """The snapshots in ``folder`` by images seen, the earliest first."""
    return {int(file.stem): file for file in sorted(folder.glob("[0-9]*.safetensors"))}


def reconstruct(folder: Path, width: float, images_seen: int) -> dict[str, Tensor]:
    """The power-function average of ``width`` at ``images_seen``, out of the snapshots up to then.

    Averaged tensors are sums of the snapshots' in fp64, with factors by least squares; what is copied is the last
    snapshot's.

    Returns:
        fp32 tensors, and those that are copied, by their names in the module.

    Raises:
        ValueError: there is no snapshot of that moment (names those that there are), or the width is impossible.
    """
    files = {seen: file for seen, file in moments(folder).items() if seen <= images_seen}
    if images_seen not in files:
        there = ", ".join(f"{seen / 1000:g}" for seen in moments(folder))
        if not there:
            raise ValueError(
                f"{folder}: snapshots of averages are needed, and there is none: train with --ema.widths '[0.05, 0.1]'"
            )
        raise ValueError(f"{folder}: no snapshot at {images_seen / 1000:g} kimg; choose one at {there}")
    stored = [(seen, Power(width)) for seen, file in files.items() for width in _widths(file)]
    factors = reconstruction(stored, images_seen, Power(width))
    sums: dict[str, Tensor] = {}
    for (seen, power), factor in zip(stored, factors, strict=True):
        for name, tensor in _read(files[seen], repr(power.width)).items():
            term = tensor.double() * factor
            sums[name] = sums[name] + term if name in sums else term
    averaged = {name: total.float() for name, total in sums.items()}
    return {**averaged, **_read(files[images_seen], COPIED)}


def _widths(file: Path) -> list[float]:
    with safe_open(file, framework="pt") as opened:
        starts = {key.partition(":")[0] for key in list(opened.keys())}
    return sorted(float(start) for start in starts - {COPIED})


def _read(file: Path, start: str) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        keys = [key for key in list(opened.keys()) if key.partition(":")[0] == start]
        return {key.partition(":")[2]: opened.get_tensor(key) for key in keys}
