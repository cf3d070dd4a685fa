"""A run's networks with a power-function average of another width, as a file that loads like an exported one."""

from __future__ import annotations

import os
from pathlib import Path

from launch.checkpoints.export import export
from launch.checkpoints.snapshots import moments, reconstruct
from launch.inference.loading import load_family
from launch.runs.folder import at_images, open_run


def average_of_width(
    path: str | os.PathLike[str], width: float, *, images_seen: int | None = None, out: Path | None = None
) -> tuple[Path, int, float]:
    """Writes the average of a relative ``width`` out of the snapshots that the run has kept.

    Args:
        path: the run's folder.
        width: standard deviation of the profile as a share of the training until then.
        images_seen: the moment, one of a snapshot; None: the last snapshot's.
        out: a name that ends with ``.safetensors``; None: a file in the run's ``averages/`` that says width and moment.

    Returns:
        The file, with its config beside it; the moment in images seen; and the profile's relative error, which the
        file's metadata has as well.

    Raises:
        ValueError, FileNotFoundError: no such run or snapshot, an impossible width or one that the snapshots cannot
            give, or ``out`` has another ending.
    """
    run = open_run(path)
    if images_seen is None:
        images_seen = max(moments(run.averages), default=0)
    tensors, error = reconstruct(run.averages, width, images_seen)
    module, _ = load_family(run.path, average=False)
    module.load_state_dict({**module.state_dict(), **tensors})
    file = out or run.averages / f"width-{width:g}-{at_images(images_seen)}.safetensors"
    about = {"family": type(module).__name__, "images_seen": images_seen, "weights": "average", "width": width}
    export(module, file, origin={**about, "profile_error": error})
    return file, images_seen, error
