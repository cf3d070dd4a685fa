"""What became of each attempt of a run's job, and whether the job is to start again.

An attempt that was interrupted (preemption, time limit) always comes back. One that failed comes back too, since nodes
break and memory is shared, but not for ever: after ``LIMIT`` failures in a row without a new checkpoint the run stops.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from launch.runs.folder import RunFolder, slurm_attempt, this_process
from launch.training.signals import COME_AGAIN

#: Failures in a row without progress after which a run stops.
LIMIT = 3
#: What SLURM's warning does to ranks that do not listen yet.
UNHEARD = 128 + signal.SIGUSR1

Decision = Literal["stop", "requeue", "pass"]


@dataclass(frozen=True)
class Attempt:
    """One time that a run's job has run.

    Args:
        job: SLURM's number, with the array's task.
        restart: how often SLURM had started that job again.
        exit_code: of its ranks; ``COME_AGAIN`` if they have saved and left.
        checkpoint: name of the last one when it ended, "" for none.
        ended: Unix time.
        decision: what followed.
        reason: in words.
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
        """Whether it ended for a reason of its own."""
        return self.exit_code not in (0, COME_AGAIN, UNHEARD)


def settle(run: RunFolder, exit_code: int) -> Decision:
    """Books how an attempt has ended, and decides what follows.

    Args:
        run: the run's folder.
        exit_code: what srun has returned.
    """
    jobs = submitted(run)
    # The jobs of a chain are all queued at once; the next one goes on.
    chained = job_id() in jobs[:-1]
    info = run.info()
    if info.get("state") == "interrupted" and info.get("slurm_attempt") == slurm_attempt():
        # srun may have ended the other ranks, since the first one left with an error code: theirs is what it returns.
        exit_code = COME_AGAIN
    last = run.last_checkpoint
    checkpoint = last.resolve().name if last else ""
    decision, reason = decide(attempts(run), exit_code, checkpoint, chained=chained)
    if exit_code not in (0, COME_AGAIN, UNHEARD):
        reason = f"{reason}: {last_words(run) or f'exit code {exit_code}'}"
        # A rank that was killed has booked nothing.
        run.update(owner=this_process(), state="failed", error=reason)
    book(run, Attempt(job_id(), restarts(), exit_code, checkpoint, time.time(), decision, reason))
    return decision


def decide(before: Sequence[Attempt], exit_code: int, checkpoint: str, *, chained: bool) -> tuple[Decision, str]:
    """What follows an attempt, and why, given those before it."""
    if exit_code == 0:
        return "stop", "finished"
    onward: Decision = "pass" if chained else "requeue"
    if exit_code in (COME_AGAIN, UNHEARD):
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
    """All that were booked, the oldest first."""
    file = _file(run)
    if not file.is_file():
        return []
    return [Attempt(**json.loads(line)) for line in file.read_text().splitlines() if line.endswith("}")]


def book(run: RunFolder, attempt: Attempt) -> None:
    file = _file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(attempt)) + "\n")


def _file(run: RunFolder) -> Path:
    return run.path / "slurm" / "attempts.jsonl"


def submitted(run: RunFolder) -> list[str]:
    """Numbers of the jobs that were queued for a run, the oldest first."""
    file = run.path / "slurm" / "jobs.txt"
    return file.read_text().split() if file.is_file() else []


def note_job(run: RunFolder, number: str) -> None:
    """Adds to ``submitted``."""
    with (run.path / "slurm" / "jobs.txt").open("a") as stream:
        stream.write(f"{number}\n")


def last_words(run: RunFolder) -> str | None:
    """What gesso said last in the ranks' logs, the first rank first."""
    logs = sorted((run.path / "logs").glob("rank*.log"), key=lambda log: int(re.sub(r"\D", "", log.stem)))
    for log in logs:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8192))
            lines = stream.read().decode(errors="replace").splitlines()
        if lines and (said := [line for line in lines[-20:] if line.startswith("gesso: ")]):
            return said[-1].removeprefix("gesso: ")
    return None


def job_id() -> str:
    """This job, as SLURM's commands call it."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often SLURM has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))
