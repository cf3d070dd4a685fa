"""How the runs of a cluster stand: SLURM's word beside their own, and their logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.report.record import Record, read_record
from launch.runs.folder import RunFolder
from slurm import queue
from slurm.attempts import attempts, submitted

#: Seconds between two looks at a log.
INTERVAL = 0.5


@dataclass(frozen=True)
class Standing:
    """A run's row of the table.

    Args:
        run: its folder.
        job: number of its current or last job.
        state: SLURM's, while the job waits or runs; else the run's own; ``gone`` if neither knows how it has ended.
        restarts: how often it has come back.
        kimg: how far it is.
        total_kimg: how far it is to go.
        fid: the last one, of whichever extractor.
        images_per_second: the last reading.
        left: time to the job's limit.
        reason: why it waits, or why it has ended.
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
    """The runs under ``root`` that were ever queued, the newest last."""
    return [
        RunFolder(file.parents[1]) for file in sorted(root.glob("*/slurm/jobs.txt"), key=lambda f: f.stat().st_mtime)
    ]


def standings(runs: Sequence[RunFolder]) -> list[Standing]:
    """How these runs stand, by one question to SLURM."""
    known = queue.jobs(number for run in runs for number in submitted(run))
    return [_standing(run, known) for run in runs]


def _standing(run: RunFolder, known: dict[str, queue.QueuedJob]) -> Standing:
    job = current_job(run, known)
    record = read_record(run.path)
    info: dict[str, Any] = record.info
    # The run's own word is more exact, once SLURM has nothing to do with it any more.
    state = info.get("state", "unknown")
    if job and (job.alive or state in ("queued", "running")):
        state = job.state.lower()
    elif job is None and state in ("queued", "running"):
        state = "gone"
    past = attempts(run)
    reason = (job.reason if job and job.alive else "") or info.get("error") or (past[-1].reason if past else "")
    return Standing(
        run=run,
        job=job.id if job else (submitted(run) or [""])[-1],
        state=state,
        restarts=int(info.get("restarts", 0)),
        kimg=float(info.get("kimg", 0.0)),
        total_kimg=float(info.get("total_kimg", 0.0)),
        fid=_fid(record),
        images_per_second=info.get("images_per_second"),
        left=job.left if job else "",
        reason=reason,
    )


def _fid(record: Record) -> float | None:
    measured = [metric.points[-1][1] for metric in record.metrics() if metric.quantity.name == "fid" and metric.points]
    return measured[-1] if measured else None


def current_job(run: RunFolder, known: dict[str, queue.QueuedJob]) -> queue.QueuedJob | None:
    """Of a run's jobs the first that is alive, else the last that SLURM remembers."""
    found = [known[number] for number in submitted(run) if number in known]
    return next((job for job in found if job.alive), found[-1] if found else None)


def show(table: Sequence[Standing]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    columns = Table(box=None, pad_edge=False)
    for name in ("RUN", "JOB", "STATE"):
        columns.add_column(name, no_wrap=True)
    for name in ("RESTARTS", "KIMG", "FID", "IMG/S", "LEFT"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("REASON")
    for row in table:
        columns.add_row(
            row.run.path.name,
            row.job,
            row.state,
            str(row.restarts),
            f"{row.kimg:,.1f}/{row.total_kimg:,.0f}",
            "" if row.fid is None else f"{row.fid:.2f}",
            "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            row.left,
            row.reason,
        )
    Console(width=max(Console().width, 140)).print(columns)


def log_file(run: RunFolder, rank: int | None) -> Path:
    """A rank's log, or, without a rank, the job's own.

    Raises:
        FileNotFoundError: there is none yet.
    """
    file = Path(run.info()["slurm"]["log"]) if rank is None else run.path / "logs" / f"rank{rank}.log"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: nothing was logged yet; `gesso slurm status` tells whether the job runs")
    return file


def copy(file: Path, *, until: Callable[[], bool] | None = None) -> None:
    """Prints a log; with ``until`` goes on as it grows, and ends when that is true and all was written."""
    for piece in _pieces(file, until):
        print(piece, end="", flush=True)


def occasionally(question: Callable[[], bool], seconds: float = 5.0) -> Callable[[], bool]:
    """Asks at most every so often: SLURM's controller serves everybody."""
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
