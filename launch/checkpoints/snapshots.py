"""Snapshots of power-function averages, and the averages of other widths that they give afterwards (EDM2, appendix C).

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
#: Largest relative error of a profile whose average is still one of that width.
LARGEST_ERROR = 0.1


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


def reconstruct(folder: Path, width: float, images_seen: int) -> tuple[dict[str, Tensor], float]:
    """The power-function average of ``width`` at ``images_seen``, out of the snapshots up to then.

    Averaged tensors are sums of the snapshots' in fp64, with factors by least squares; what is copied is the last
    snapshot's.

    Returns:
        fp32 tensors, and those that are copied, by their names in the module; and the relative error of their profile,
        from 0 to ``LARGEST_ERROR``: see ``Reconstruction``.

    Raises:
        ValueError: there is no snapshot of that moment (names those that there are), the width is impossible, or no
            sum of what is kept comes near it.
    """
    files = {seen: file for seen, file in moments(folder).items() if seen <= images_seen}
    if images_seen not in files:
        there = ", ".join(f"{seen / 1000:g}" for seen in moments(folder))
        if not there:
            raise ValueError(
                f"{folder}: snapshots of averages are needed, and there is none: train with --ema.widths '[0.05, 0.1]'"
            )
        raise ValueError(f"{folder}: no snapshot at {images_seen / 1000:g} kimg; choose one at {there}")
    stored = [(seen, Power(kept)) for seen, file in files.items() for kept in _widths(file)]
    factors, error = reconstruction(stored, images_seen, Power(width))
    if error > LARGEST_ERROR:
        widths = sorted({power.width for _, power in stored})
        raise ValueError(
            f"{folder}: no average of relative width {width:g} comes out of what is kept ({len(files)} snapshots of "
            f"width {', '.join(f'{kept:g}' for kept in widths)}): its profile would be off by {error:.0%}. Choose a "
            f"width nearer to {min(widths, key=lambda kept: abs(kept - width)):g}, or train with --ema.widths on both "
            "sides of it and a smaller --ema.snapshot_every_kimg"
        )
    sums: dict[str, Tensor] = {}
    for (seen, power), factor in zip(stored, factors, strict=True):
        for name, tensor in _read(files[seen], repr(power.width)).items():
            term = tensor.double() * factor
            sums[name] = sums[name] + term if name in sums else term
    averaged = {name: total.float() for name, total in sums.items()}
    return {**averaged, **_read(files[images_seen], COPIED)}, error


def _widths(file: Path) -> list[float]:
    with safe_open(file, framework="pt") as opened:
        starts = {key.partition(":")[0] for key in list(opened.keys())}
    return sorted(float(start) for start in starts - {COPIED})


def _read(file: Path, start: str) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        keys = [key for key in list(opened.keys()) if key.partition(":")[0] == start]
        return {key.partition(":")[2]: opened.get_tensor(key) for key in keys}
