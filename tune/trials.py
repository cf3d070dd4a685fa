"""The trials of a sweep: what was drawn for each, and which have ended. Written before Ray Tune hears of them.

Ray Tune's own state is written now and then, in files that may disagree when its process is killed. This list, and the
journals in the trials' run folders, are all that a sweep goes on from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gesso.common.files import write_whole
from tune.journal import Journal
from tune.sweep import Sweep

TRIALS = "trials.json"
End = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Drawn:
    """One trial.

    Args:
        id: its number from 1 on, and the name of its run folder.
        config: what was drawn for every dimension, also for those without effect.
        end: how it has ended; None: it has not. ``stopped``: early, by the scheduler.
    """

    id: str
    config: dict[str, Any]
    end: End | None = None

    @property
    def number(self) -> int:
        return int(self.id)


class Trials:
    """All trials of a sweep that have begun, by their numbers.

    Args:
        sweep: the sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.file = sweep.path / TRIALS

    def read(self) -> list[Drawn]:
        return [Drawn(**entry) for entry in json.loads(self.file.read_text())] if self.file.is_file() else []

    def add(self, config: dict[str, Any]) -> Drawn:
        """Gives a configuration its number."""
        trials = self.read()
        trial = Drawn(f"{len(trials) + 1:03d}", config)
        self._write([*trials, trial])
        return trial

    def end(self, identity: str, end: End) -> None:
        """Notes that a trial will not go on."""
        self._write([replace(trial, end=end) if trial.id == identity else trial for trial in self.read()])

    def journal(self, identity: str) -> Journal:
        """What a trial has reported."""
        return Journal(self.sweep.trials / identity)

    def _write(self, trials: list[Drawn]) -> None:
        write_whole(self.file, json.dumps([asdict(trial) for trial in trials], indent=1))
