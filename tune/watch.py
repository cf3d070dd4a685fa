"""The state of a sweep's trials, as a file and a live table in the terminal that are updated while Ray Tune works."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gesso.common.extras import needing
from gesso.common.files import read_json, write_whole
from launch.runs.folder import RunFolder
from tune.draw import count
from tune.journal import Report
from tune.sweep import Objective, Sweep
from tune.trials import Trials

with needing("tune"):
    from ray.tune.experiment import Trial
    from ray.tune.progress_reporter import TrialProgressCallback

State = Literal["waiting", "running", "finished", "stopped", "failed"]
RESULTS = "results.json"
#: Rows of the live table.
ROWS = 24


@dataclass(frozen=True)
class Row:
    """One trial.

    Args:
        number: from 1, in the order in which trials began.
        id: the number as the name of its run folder.
        config: the drawn options that have an effect; in PBT those it was last trained with.
        state: of the trial; ``stopped``: ended early by the scheduler.
        reports: all reports, the oldest first.
        error: why it failed; "" if it did not.
    """

    number: int
    id: str
    config: dict[str, Any]
    state: State
    reports: Sequence[Report] = ()
    error: str = ""

    @property
    def kimg(self) -> float:
        return self.reports[-1].kimg if self.reports else 0.0

    def value(self, objective: Objective) -> float:
        """The last value of a metric; NaN before there is one."""
        return self.reports[-1].metrics.get(objective.metric, math.nan) if self.reports else math.nan

    def figures(self, objectives: Sequence[Objective]) -> str:
        """The last values of the objectives, as text."""
        return ", ".join(f"{objective.metric} {self.value(objective):.4g}" for objective in objectives)

    @property
    def drawn(self) -> str:
        """The drawn options as text: ``name=value``."""
        return " ".join(f"{name}={short(value)}" for name, value in self.config.items())


def short(value: Any) -> str:
    """A value as text, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rows_of(sweep: Sweep, running: Collection[str]) -> list[Row]:
    """The state of each trial, by number.

    Args:
        sweep: the sweep.
        running: ids of the trials that Ray runs now.
    """
    rows, trials = [], Trials(sweep)
    earlier: dict[str, Row] | None = None
    for trial in trials.read():
        reports = trials.journal(trial.id).read()
        if trial.end and not reports:
            # Its folder may be gone, to save room: what it has reported still counts.
            earlier = _last_written(sweep) if earlier is None else earlier
            reports = list(earlier[trial.id].reports) if trial.id in earlier else []
        # In a population the options change while a trial trains.
        config = reports[-1].config if reports else sweep.space.active(trial.config)
        state: State = trial.end or ("running" if trial.id in running else "waiting")
        error = _error(RunFolder(sweep.trials / trial.id)) if state == "failed" else ""
        rows.append(Row(trial.number, trial.id, dict(config), state, reports, error))
    return rows


def _last_written(sweep: Sweep) -> dict[str, Row]:
    """The rows of results.json by id; none where it is damaged, since it is about to be written anew."""
    with contextlib.suppress(ValueError):
        return {row.id: row for row in read_rows(sweep)}
    return {}


def _error(run: RunFolder) -> str:
    return str(run.info().get("error") or "its process was lost; see logs/rank0.log")


def is_baseline(sweep: Sweep, row: Row) -> bool:
    """Whether this is the trial with the recipe's own values."""
    return sweep.baseline is not None and row.number == 1


def name_of(sweep: Sweep, row: Row) -> str:
    """``1``, or ``1 (baseline)`` for the trial with the recipe's own values."""
    return f"{row.number} (baseline)" if is_baseline(sweep, row) else str(row.number)


def save_rows(sweep: Sweep, rows: Sequence[Row]) -> None:
    write_whole(sweep.path / RESULTS, json.dumps([asdict(row) for row in rows], indent=1))


def read_rows(sweep: Sweep) -> list[Row]:
    """The trials of a sweep as last written to results.json; [] before that.

    Raises:
        ValueError: it is damaged; names it and what to do.
    """
    file = sweep.path / RESULTS
    if not file.is_file():
        return []
    remedy = f"`{sweep.resume_command()}` writes it anew from the trials' own files"
    rows: Any = read_json(file, remedy=remedy)
    try:
        return [Row(**{**row, "reports": [Report(**report) for report in row["reports"]]}) for row in rows]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file}: damaged ({type(error).__name__}: {error}); {remedy}") from error


def ranked(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """Trials with a result: those that trained longest first, and the best first among equally long ones."""
    measured = [row for row in rows if row.reports and row.state != "failed"]
    longest = {row.id for row in comparable(rows)}

    def place(row: Row) -> tuple[float, float]:
        return -math.inf if row.id in longest else -row.kimg, objective.sign * row.value(objective)

    return sorted(measured, key=place)


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The trials that may be compared: those that trained longest of all with a result, and did not fail.

    All that came to their end did: with batches of several sizes, their last evaluations are not quite at one length.
    """
    measured = [row for row in rows if row.reports and row.state != "failed"]
    longest = max((row.kimg for row in measured), default=0.0)
    least = min((row.kimg for row in measured if row.state == "finished"), default=longest)
    return [row for row in measured if row.kimg >= least]


def best_of(rows: Sequence[Row], objective: Objective) -> Row | None:
    """The best trial by its last report, among those that trained longest."""
    measured = [row for row in comparable(rows) if math.isfinite(row.value(objective))]
    return min(measured, key=lambda row: objective.sign * row.value(objective), default=None)


def tied(rows: Sequence[Row], best: Row, objective: Objective) -> list[Row]:
    """The other trials whose value is the best one's: nothing tells them apart."""
    value = best.value(objective)
    return [row for row in comparable(rows) if row is not best and row.value(objective) == value]


def front_of(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """The Pareto front of the trials that trained longest, sorted by the first metric: no other one is as good in all
    metrics and better in one."""

    def losses(row: Row) -> list[float]:
        return [objective.sign * row.value(objective) for objective in objectives]

    measured = [row for row in comparable(rows) if all(map(math.isfinite, losses(row)))]
    front = [
        row
        for row in measured
        if not any(
            all(a <= b for a, b in zip(losses(other), losses(row), strict=True)) and losses(other) != losses(row)
            for other in measured
        )
    ]
    return sorted(front, key=losses)


def chosen_of(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """The best trial, or with several objectives those on the Pareto front."""
    if len(objectives) > 1:
        return front_of(rows, objectives)
    best = best_of(rows, objectives[0])
    return [best] if best else []


class Watch(TrialProgressCallback):
    """Callback: updates results.json and the table, in place of Ray Tune's own progress output.

    Args:
        sweep: the sweep.
        interval: least seconds between two updates.
    """

    def __init__(self, sweep: Sweep, interval: float = 0.5) -> None:
        super().__init__()
        self.sweep = sweep
        self.interval = interval
        self._next_look = 0.0
        self._told: set[str] = set()
        self._live: Live | None = None

    def setup(self, *arguments: Any, **info: Any) -> None:
        # Trials that ended before a stop are not printed again.
        self._told = {trial.id for trial in Trials(self.sweep).read() if trial.end}
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if time.monotonic() >= self._next_look:
            self._look(trials)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._look(trials)
        if self._live:
            self._live.stop()
            self._live = None

    def _look(self, trials: list[Trial]) -> None:
        began = time.monotonic()
        rows = rows_of(self.sweep, {trial.trial_id for trial in trials if trial.status == Trial.RUNNING})
        save_rows(self.sweep, rows)
        if self._live:
            self._live.update(table(self.sweep, rows), refresh=True)
        else:
            self._tell(rows)
        # Reading a long sweep takes time: at most a twentieth of all, as for Ray's own saving.
        ended = time.monotonic()
        self._next_look = ended + max(self.interval, 19 * (ended - began))

    def _tell(self, rows: Sequence[Row]) -> None:
        """Prints a line for each trial that has ended, where there is no terminal."""
        for row in rows:
            if row.state in ("finished", "stopped", "failed") and row.id not in self._told:
                self._told.add(row.id)
                what = row.error or row.figures(self.sweep.objectives)
                print(
                    f"trial {name_of(self.sweep, row)} {row.state} at {row.kimg:g} kimg: {what}  ({row.drawn})",
                    file=sys.stderr,
                )

    def _print(self, msg: str) -> None:
        pass


def table(sweep: Sweep, rows: Sequence[Row]) -> Table:
    """The table of the running trials and the best of the others."""
    objectives = sweep.objectives
    best = {row.id for row in chosen_of(rows, objectives)}
    counts = Counter(row.state for row in rows)
    title = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    shown = Table(title=f"{sweep.path.name}: {len(rows)} of {count(sweep)} trials: {title}", title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row.config))
    for head in (
        "trial",
        "",
        *(name.removeprefix("model.") for name in names),
        "kimg",
        *(o.metric for o in objectives),
    ):
        shown.add_column(head, justify="left" if head == "" else "right")
    running = [row for row in rows if row.state == "running"]
    others = ranked([row for row in rows if row.state != "running"], objectives[0])
    failed = [row for row in rows if row.state == "failed"]
    for row in [*running, *others, *failed][:ROWS]:
        values = [short(row.config.get(name, "–")) for name in names]
        figures = [f"{row.value(objective):.4g}" if row.reports else "" for objective in objectives]
        style = "bold green" if row.id in best else "red" if row.state == "failed" else None
        shown.add_row(name_of(sweep, row), row.state, *values, f"{row.kimg:g}", *figures, style=style)
    return shown
