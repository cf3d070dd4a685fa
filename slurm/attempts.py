"""Records how each attempt of a run's job ended, and decides whether the job starts again.

A job that was interrupted (preemption, time limit) is always requeued. A job that failed is requeued as well, since the
cause may be a broken node or memory used by others, but not for ever: after ``LIMIT`` failures in a row without a new
checkpoint the run stops.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from gesso.common.files import append, json_lines
from launch.runs.folder import RunFolder, slurm_attempt, this_process
from launch.training.signals import EXIT_REQUEUE

#: Failures in a row without progress after which a run stops.
LIMIT = 3
#: Exit code of ranks that SLURM's warning signal ended before they had a handler for it.
WARNED_TOO_EARLY = 128 + signal.SIGUSR1

Decision = Literal["stop", "requeue", "pass"]


@dataclass(frozen=True)
class Attempt:
    """One start of a run's job.

    Args:
        job: SLURM's job number, with the task's number in an array.
        restart: how often SLURM had restarted that job before.
        exit_code: of the ranks; ``EXIT_REQUEUE`` if they saved and left.
        checkpoint: name of the last checkpoint when the attempt ended, "" for none.
        ended: Unix time of its end.
        decision: what was decided then.
        reason: the reason, for people.
    """

    job: str
    restart: int
    exit_code: int
    checkpoint: str
    ended: float
    decision: Decision
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the attempt ended by an error, rather than by an interruption or at its end."""
        return self.exit_code not in (0, EXIT_REQUEUE, WARNED_TOO_EARLY)


def settle(run: RunFolder, exit_code: int) -> Decision:
    """Records how the current attempt ended, and decides what follows.

    Args:
        run: the run's folder.
        exit_code: the exit code of srun.
    """
    jobs = submitted(run)
    # The jobs of a chain are all queued at once; the next one goes on.
    chained = job_id() in jobs[:-1]
    info = run.info()
    ended_by = info.get("ended_by") if info.get("slurm_attempt") == slurm_attempt() else None
    if info.get("state") == "interrupted" and info.get("slurm_attempt") == slurm_attempt() and not ended_by:
        # One rank left with an error code, so srun may have killed the others: then it returns the code of those.
        exit_code = EXIT_REQUEUE
    last = run.last_checkpoint
    checkpoint = last.resolve().name if last else ""
    decision, reason = decide(attempts(run), exit_code, checkpoint, chained=chained)
    if exit_code not in (0, EXIT_REQUEUE, WARNED_TOO_EARLY):
        reason = f"{reason}: {last_message(run) or f'exit code {exit_code}'}"
        # A rank that was killed has recorded nothing.
        run.update(owner=this_process(), state="failed", error=reason)
    elif exit_code == 0 and ended_by:
        # A limit of the trainer, at which it would end again.
        reason = f"ended by {ended_by}"
    record_attempt(run, Attempt(job_id(), restarts(), exit_code, checkpoint, time.time(), decision, reason))
    return decision


def decide(before: Sequence[Attempt], exit_code: int, checkpoint: str, *, chained: bool) -> tuple[Decision, str]:
    """Decides what follows an attempt, given the earlier ones.

    Args:
        before: the earlier attempts, the oldest first.
        exit_code: of this attempt.
        checkpoint: name of the last checkpoint now, "" for none.
        chained: whether the next job of a chain is already queued.

    Returns:
        The decision and its reason.
    """
    if exit_code == 0:
        return "stop", "finished"
    onward: Decision = "pass" if chained else "requeue"
    if exit_code in (EXIT_REQUEUE, WARNED_TOO_EARLY):
        return onward, "interrupted"
    fruitless = 1
    for attempt in reversed(before):
        if attempt.exit_code == 0 or attempt.checkpoint != checkpoint:
            break
        fruitless += attempt.failed
    if fruitless >= LIMIT:
        return "stop", f"failed {fruitless} times without a new checkpoint"
    return onward, "failed"


def attempts(run: RunFolder) -> list[Attempt]:
    """The recorded attempts of a run, the oldest first."""
    names = {field.name for field in fields(Attempt)}
    return [Attempt(**entry) for entry in json_lines(_file(run)) if entry.keys() == names]  # type: ignore[arg-type]


def record_attempt(run: RunFolder, attempt: Attempt) -> None:
    """Appends an attempt to ``slurm/attempts.jsonl`` of the run."""
    append(_file(run), json.dumps(asdict(attempt)) + "\n")


def _file(run: RunFolder) -> Path:
    return run.path / "slurm" / "attempts.jsonl"


def submitted(run: RunFolder) -> list[str]:
    """The numbers of the jobs queued for a run, the oldest first."""
    file = run.path / "slurm" / "jobs.txt"
    return file.read_text().split() if file.is_file() else []


def note_job(run: RunFolder, number: str) -> None:
    """Appends a job's number to those that ``submitted`` returns."""
    append(run.path / "slurm" / "jobs.txt", f"{number}\n")


def last_message(run: RunFolder) -> str | None:
    """The last line of gesso in a rank's log, of the first rank that has one; None if none has."""
    logs = sorted((run.path / "logs").glob("rank*.log"), key=lambda log: int(re.sub(r"\D", "", log.stem)))
    for log in logs:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8192))
            lines = stream.read().decode(errors="replace").splitlines()
        if lines and (said := [line for line in lines[-20:] if line.startswith("gesso: ")]):
            return said[-1].removeprefix("gesso: ")
    return None


def job_id() -> str:
    """The number of the current job, as SLURM's commands write it (``12`` or ``12_3``); "" outside of jobs."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often SLURM has restarted the current job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))
