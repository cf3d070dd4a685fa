"""The result of a training, a validation or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.runs.folder import RunFolder
from launch.runs.metrics import read_rows

#: State of a run: ``interrupted`` has saved, and can be resumed.
State = Literal["finished", "interrupted"]


@dataclass(frozen=True)
class Run:
    """The result of a training, a validation or a test.

    Args:
        path: the run folder (of a validation or test, where it would be).
        state: how it ended.
        metrics: name -> last value.
        images_seen: number of images trained on.
        signal: number of the signal that interrupted it; 0: none.
        rank: of this process.
    """

    path: Path
    state: State
    metrics: Mapping[str, float]
    images_seen: int
    signal: int = 0
    rank: int = 0

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> RunFolder:
        """The files of the run folder, by name."""
        return RunFolder(self.path)


def last_metrics(run: RunFolder) -> dict[str, float]:
    """The last value of each name in a run's metrics.csv; {} before there is any."""
    return {row.name: row.value for row in read_rows(run.metrics)}
