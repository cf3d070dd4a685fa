"""A training that begins with the heaviest channels of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from launch.inference.loading import load_family
from launch.runs.folder import open_run
from launch.training.training import Training, whole_config
from lightning_modules.core.family import ImageFamily


class Width(NamedTuple):
    """A network's width, before and after."""

    option: str
    before: int
    after: int


def pruning(
    run: str | os.PathLike[str], share: float, overrides: Mapping[str, object] | None = None, *, command: str = ""
) -> tuple[Training, list[Width]]:
    """The training of a run's own options with narrower networks, which begin with the run's heaviest channels.

    Args:
        run: the run's folder.
        share: of the channels of each layer that is kept, above 0 and below 1.
        overrides: other options, such as ``{"run.kimg": 20}``; they come last.
        command: the command line, for run.json.

    Returns:
        The training, and the widths that change.

    Raises:
        ValueError, FileNotFoundError: no such run, a share out of its range, a family that cannot be pruned; one line.
    """
    if not 0 < share < 1:
        raise ValueError(f"channels is {share:g}; it is the share that is kept: above 0 and below 1")
    folder = open_run(run)
    module, _ = load_family(run)
    if not module.widths:
        raise ValueError(f"{run}: {module.described()} cannot be pruned: DCGAN and AdaIN can")
    widths = [
        Width(option, before := _value(module, option), max(1, round(before * share))) for option in module.widths
    ]
    if any(width.after == width.before for width in widths):
        raise ValueError(f"{run}: a width of {widths[0].before} cannot be made {share:g} of that")
    chosen: dict[str, object] = {f"model.{width.option}": width.after for width in widths}
    name = f"{module.__class__.__name__.lower()}-pruned"
    own = {"model.pruned_from": str(folder.path.resolve()), "run.name": name, **(overrides or {})}
    return Training([whole_config(folder)], {**chosen, **own}, command=command), widths


def _value(module: ImageFamily, option: str) -> int:
    """An option of the family by its dotted name."""
    found: Any = module.hparams
    for name in option.split("."):
        found = found[name] if isinstance(found, Mapping) else getattr(found, name)
    return int(found)
