"""The trials of a sweep: their drawn options and how they ended, written before Ray Tune gets them.

Ray Tune writes its own state now and then, in files that may contradict each other after a kill. A sweep therefore
continues from this list and the journals in the trials' run folders alone.
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
        id: its number from 1 on, as the name of its run folder (``001``).
        config: the drawn value of every dimension, also of those without effect.
        end: how it ended (``stopped``: early, by the scheduler); None: it has not.
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
        """Records how a trial ended."""
        self._write([replace(trial, end=end) if trial.id == identity else trial for trial in self.read()])

    def journal(self, identity: str) -> Journal:
        """The journal of a trial's reports."""
        return Journal(self.sweep.trials / identity)

    def _write(self, trials: list[Drawn]) -> None:
        write_whole(self.file, json.dumps([asdict(trial) for trial in trials], indent=1))
