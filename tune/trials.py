"""The trials of a sweep: their drawn options and how they ended, written before Ray Tune gets them.

Ray Tune writes its own state now and then, in files that may contradict each other after a kill. A sweep therefore
continues from this list and the journals in the trials' run folders alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gesso.common.files import read_json, write_whole
from tune.journal import Journal
from tune.space import Space
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
        """The trials so far.

        Raises:
            ValueError: trials.json is damaged, or belongs to another space; names it and what to do.
        """
        if not self.file.is_file():
            return []
        remedy = "without it a sweep cannot go on; --report reads results.json, and every trial is a run of its own"
        entries: Any = read_json(self.file, remedy=remedy)
        try:
            trials = [Drawn(**entry) for entry in entries]
        except TypeError as error:
            raise ValueError(f"{self.file}: damaged ({error}); {remedy}") from error
        for trial in trials:
            if changed := differing(self.sweep.space, trial.config):
                raise ValueError(
                    f"{self.sweep.path / 'space.yaml'}: {', '.join(changed)} has changed since trial {trial.number} "
                    "was drawn: put the space back as it was, or begin a new sweep"
                )
        return trials

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


def differing(space: Space, config: Mapping[str, object]) -> list[str]:
    """Options that a space cannot have drawn like this: missing ones, unknown ones, values that it does not hold."""
    known = {dimension.name: dimension for dimension in space}
    found = set(known).symmetric_difference(config)
    for name in set(known).intersection(config):
        values, value = known[name].values, config[name]
        if values and value not in values:
            found.add(name)
    return sorted(found)
