"""The state of a cluster's runs, from SLURM's queue and their run folders; and their logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gesso.common.text import one_line
from launch.report.pieces import is_number, mapping
from launch.report.record import Record, read_record
from launch.runs.folder import RunFolder
from slurm import queue
from slurm.attempts import attempts, submitted

#: Seconds between two reads of a growing log.
INTERVAL = 0.5


@dataclass(frozen=True)
class Standing:
    """One run's row of the status table.

    Args:
        run: the run's folder.
        job: number of its current or last job.
        state: SLURM's state while the job waits or runs, else that of run.json; ``gone`` if neither says how the job
            ended.
        restarts: how often training was restarted.
        kimg: images seen so far, in thousands.
        total_kimg: images of the whole training, in thousands.
        fid: the last FID, by any extractor; None before the first.
        images_per_second: the last measured speed.
        left: time left until the job's limit.
        reason: why the job waits, or why it ended.
    """

    run: RunFolder
    job: str
    state: str
    restarts: int
    kimg: float
    total_kimg: float
    fid: float | None
    images_per_second: float | None
    left: str
    reason: str


def runs_below(root: Path) -> list[RunFolder]:
    """The runs under ``root`` that were queued at some time, the newest last."""
    return [
        RunFolder(file.parents[1]) for file in sorted(root.glob("*/slurm/jobs.txt"), key=lambda f: f.stat().st_mtime)
    ]


def standings(runs: Sequence[RunFolder]) -> list[Standing]:
    """The table's rows for these runs, with one query to SLURM for all; a damaged run has one, too, that names it."""
    known = queue.jobs(number for run in runs for number in submitted(run))
    return [_standing_or_damage(run, known) for run in runs]


def _standing_or_damage(run: RunFolder, known: dict[str, queue.QueuedJob]) -> Standing:
    try:
        return _standing(run, known)
    except (ValueError, OSError) as error:
        job = current_job(run, known)
        number, left = (job.id, job.left) if job else ((submitted(run) or [""])[-1], "")
        return Standing(run, number, "damaged", 0, 0.0, 0.0, None, None, left, one_line(error))


def _standing(run: RunFolder, known: dict[str, queue.QueuedJob]) -> Standing:
    job = current_job(run, known)
    record = read_record(run.path)
    info: dict[str, Any] = record.info
    # Once the job has left SLURM's queue, run.json is more exact.
    state = record.state
    if job and (job.alive or state in ("queued", "running")):
        state = job.state.lower()
    elif job is None and state in ("queued", "running"):
        state = "gone"
    past = attempts(run)
    reason = (job.reason if job and job.alive else "") or info.get("error") or (past[-1].reason if past else "")
    number = partial(_number, run, info)
    return Standing(
        run=run,
        job=job.id if job else (submitted(run) or [""])[-1],
        state=state,
        restarts=int(number("restarts") or 0),
        kimg=number("kimg") or 0.0,
        total_kimg=number("total_kimg") or 0.0,
        fid=_fid(record),
        images_per_second=number("images_per_second"),
        left=job.left if job else "",
        reason=one_line(reason),
    )


def _number(run: RunFolder, info: dict[str, Any], name: str) -> float | None:
    """A number of run.json; None where there is none. Raises a ValueError that names it where it is something else."""
    value = info.get(name)
    if value is None or is_number(value):
        return value
    raise ValueError(f"{run.path / 'run.json'}: {name} is {value!r}, no number: the file was edited or is damaged")


def _fid(record: Record) -> float | None:
    measured = [metric.points[-1][1] for metric in record.metrics() if metric.quantity.name == "fid" and metric.points]
    return measured[-1] if measured else None


def current_job(run: RunFolder, known: dict[str, queue.QueuedJob]) -> queue.QueuedJob | None:
    """The first of a run's jobs that waits or runs, else the last one that SLURM still knows; None if it knows none."""
    found = [known[number] for number in submitted(run) if number in known]
    return next((job for job in found if job.alive), found[-1] if found else None)


def show(table: Sequence[Standing]) -> None:
    """Prints the status table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    columns = Table(box=None, pad_edge=False)
    for name in ("RUN", "JOB", "STATE"):
        columns.add_column(name, no_wrap=True)
    for name in ("RESTARTS", "KIMG", "FID", "IMG/S", "LEFT"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("REASON")
    for row in table:
        # Short trainings are shorter than a thousand images.
        done = f"{row.kimg:,.1f}/{row.total_kimg:,.0f}"
        if row.total_kimg < 10:
            done = f"{row.kimg:.3g}/{row.total_kimg:.3g}"
        columns.add_row(
            escape(row.run.path.name),
            row.job,
            escape(row.state),
            str(row.restarts),
            done,
            "" if row.fid is None else f"{row.fid:.2f}",
            "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            row.left,
            escape(row.reason),
        )
    Console(width=max(Console().width, 140)).print(columns)


def log_file(run: RunFolder, rank: int | None) -> Path:
    """The log file of a rank; without a rank, that of the job's script.

    Raises:
        FileNotFoundError: nothing was logged yet.
    """
    # Without what submit has noted, that of a job of its own.
    log = mapping(run.info().get("slurm")).get("log") or run.path / "slurm" / "job.log"
    file = Path(str(log)) if rank is None else run.path / "logs" / f"rank{rank}.log"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: nothing was logged yet; `gesso slurm status` shows whether the job runs")
    return file


def copy(file: Path, *, until: Callable[[], bool] | None = None) -> None:
    """Prints a log.

    Args:
        file: the log.
        until: with it, new lines are printed as they come, until it returns True and all was printed.
    """
    for piece in _pieces(file, until):
        print(piece, end="", flush=True)


def rate_limited(question: Callable[[], bool], seconds: float = 5.0) -> Callable[[], bool]:
    """Wraps a query of SLURM so that it runs at most once in ``seconds``; between, it returns the last answer."""
    asked, answer = float("-inf"), False

    def ask() -> bool:
        nonlocal asked, answer
        if time.monotonic() - asked >= seconds:
            asked, answer = time.monotonic(), question()
        return answer

    return ask


def _pieces(file: Path, until: Callable[[], bool] | None) -> Iterator[str]:
    with file.open(errors="replace") as stream:
        while True:
            over = until is None or until()
            if piece := stream.read():
                yield piece
            elif over:
                return
            else:
                time.sleep(INTERVAL)
