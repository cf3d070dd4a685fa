"""Whether two trainings are one and the same, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gesso.cli.main import main
from launch.checkpoints import layout
from launch.runs.folder import RunFolder
from launch.runs.metrics import read_rows


def whole_run(command: Callable[..., list[str]], root: Path, *, kimg: float) -> RunFolder:
    """Trains a run in one go, and another one that is stopped half-way by its length, and asserts that both are alike.

    Args:
        command: arguments of the command line for a root folder of runs, and further options.
        root: folder for both.
        kimg: length of the run that ``command`` asks for.

    Returns:
        The run that was not stopped.
    """
    assert main(command(root / "whole")) == 0
    (whole,) = (RunFolder(path) for path in (root / "whole").iterdir())
    assert main(command(root / "parts", f"--run.kimg={kimg / 2:g}")) == 0
    (parts,) = (RunFolder(path) for path in (root / "parts").iterdir())
    assert main(["fit", "--resume", str(parts.path), f"--run.kimg={kimg:g}"]) == 0
    assert_identical(training_state(parts.path), training_state(whole.path))
    return whole


def training_state(run: Path) -> dict[str, Any]:
    """What must be equal: all of a run's last checkpoint but Lightning's loop counters and the seconds spent."""
    last = RunFolder(run).last_checkpoint
    assert last is not None
    checkpoint = layout.read(last)
    (data,) = (name for name in checkpoint if name.endswith("Data"))
    names = ("state_dict", "averages", "optimizer_states", "gesso", data, "hyper_parameters")
    return {name: checkpoint[name] for name in names}


def assert_identical(ours: Any, theirs: Any, where: str = "") -> None:
    """Every tensor, counter and option of two nested structures, types included."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_identical(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_identical(a, b, f"{where}/{number}")
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def curve(run: Path) -> list[tuple[int, str, float]]:
    """What must be equal of a run's metrics.csv, row by row: all but seconds and images/s."""
    return [
        (row.images_seen, row.name, row.value)
        for row in read_rows(RunFolder(run).metrics)
        if row.name != "images_per_second"
    ]
