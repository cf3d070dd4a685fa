"""A sweep: a folder with its options and all of its results.

::

    sweeps/<name>/
        sweep.json       the sweep's options
        config.yaml      the recipe that all trials share, resolved
        space.yaml       the space, as it was given
        trials.json      each trial's drawn options, and how it ended
        trials/001/ ...  a run folder for each trial, which `gesso fit --resume`, `generate` and `report` take
        results.json     each trial's configuration, state and reports
        best.yaml        the best trial's recipe; pareto-1.yaml ... where there are two objectives
        report.html
        ray/             Ray Tune's own state, which gesso never reads
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from gesso.common.files import read_json, write_whole
from launch.runs.folder import fresh_name
from lightning_modules.metrics.specs import Direction
from tune.choices import POPULATION, REDUCTION, Scheduler, Search
from tune.space import Space, read_space


@dataclass(frozen=True)
class Objective:
    """A metric to minimise or maximise."""

    metric: str
    mode: Direction

    @property
    def sign(self) -> int:
        """+1 to minimise, -1 to maximise."""
        return 1 if self.mode == "min" else -1


@dataclass(frozen=True)
class Placement:
    """Resources of one trial: ``ranks`` processes with ``cpus`` cores and ``gpus`` GPUs each.

    Trials of one rank may share a GPU (0.5).
    """

    ranks: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def bundles(self) -> list[dict[str, float]]:
        """The resources of each rank, in the form of Ray's placement groups."""
        return [{"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})} for _ in range(self.ranks)]


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Args:
        path: its folder.
        command: the command that made it.
        objectives: one metric; or several, for a Pareto front.
        num_samples: number of trials; with ``grid`` in the space, of passes over the grid.
        search: how configurations are drawn.
        scheduler: which trials continue.
        kimg: length of a trial that is not ended early.
        every_kimg: interval of a trial's reports, which is that of the recipe's evaluations.
        grace_kimg: length that ASHA and the median rule let every trial train.
        reduction: ASHA's η: one in this many of the trials that reach a rung continues.
        perturb_kimg: interval at which PBT and PB2 copy states and change weights.
        placement: the resources of a trial.
        concurrent: most trials at once; None: as many as there is room for.
        seed: of all that is drawn.
        baseline: the first trial's values, which are the recipe's own; None: it is drawn like the others.
    """

    path: Path
    command: str
    objectives: Sequence[Objective]
    num_samples: int
    search: Search = "random"
    scheduler: Scheduler = "none"
    kimg: float = 0.0
    every_kimg: float = 0.0
    grace_kimg: float = 0.0
    reduction: float = REDUCTION
    perturb_kimg: float = 0.0
    placement: Placement = Placement()
    concurrent: int | None = None
    seed: int = 0
    baseline: dict[str, Any] | None = None

    @cached_property
    def space(self) -> Space:
        return read_space(self.path / "space.yaml")

    @property
    def recipe(self) -> Path:
        return self.path / "config.yaml"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def ray(self) -> Path:
        return self.path / "ray"

    def at_end(self, kimg: float) -> bool:
        """Whether a trial's report at this length is its last."""
        return kimg > self.kimg - self.every_kimg

    @property
    def population(self) -> bool:
        """Whether trials take over each other's states."""
        return self.scheduler in POPULATION

    def save(self) -> None:
        write_whole(self.path / "sweep.json", json.dumps({**asdict(self), "path": None}, indent=1))

    def resume_command(self) -> str:
        return f"gesso tune --resume {shlex.quote(os.path.relpath(self.path))}"


def new_sweep_path(root: str, name: str) -> Path:
    """A fresh folder name under ``root``."""
    return Path(os.path.abspath(root)) / fresh_name(name, "sweep")


def open_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Opens the sweep at ``path``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its sweep.json is damaged.
    """
    folder = Path(os.path.abspath(path))
    file = folder / "sweep.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no sweep here (sweep.json is missing); `gesso tune` makes them under sweeps/")
    content: Any = read_json(file, remedy="without it a sweep cannot go on: begin a new one; its trials are runs")
    try:
        objectives = tuple(Objective(**objective) for objective in content.pop("objectives"))
        placement = Placement(**content.pop("placement"))
        sweep = Sweep(**{**content, "path": folder, "objectives": objectives, "placement": placement})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: not readable ({type(error).__name__}: {error})") from error
    if sweep.scheduler not in get_args(Scheduler) or sweep.search not in get_args(Search):
        raise ValueError(f"{file}: search {sweep.search}, scheduler {sweep.scheduler}: not known to this version")
    return sweep
