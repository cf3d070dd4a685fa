"""SLURM's own commands, and what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: A controller that does not answer within so many seconds is down.
TIMEOUT = 60

#: States in which a job waits or works.
ALIVE = {
    "PENDING",
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "SUSPENDED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "RESIZING",
    "STAGE_OUT",
}


@dataclass(frozen=True)
class QueuedJob:
    """A job as SLURM sees it.

    Args:
        id: its number, with the task of an array (``12_3``).
        state: ``RUNNING``, ``PENDING`` ...
        reason: why it waits or has ended; "" for none.
        left: time left of its limit, as SLURM writes it; "" where it means nothing.
        nodes: where it runs.
    """

    id: str
    state: str
    reason: str = ""
    left: str = ""
    nodes: str = ""

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ALIVE


def slurm(command: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What one of SLURM's commands prints.

    Args:
        env: the environment, if not this process's.

    Raises:
        FileNotFoundError: there is no SLURM here.
        RuntimeError: the command has failed; its own words, in one line.
    """
    if shutil.which(command) is None:
        raise FileNotFoundError(f"{command} not found: this machine belongs to no SLURM cluster; go to a login node")
    try:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=TIMEOUT, env=env)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command} has not answered for {TIMEOUT} seconds: is SLURM's controller up?") from None
    if done.returncode:
        raise RuntimeError(complaint(done.stderr or done.stdout) or f"{command} failed ({done.returncode})")
    # `sbatch --test-only` has its say on stderr.
    return done.stdout or done.stderr


def complaint(message: str) -> str:
    """The complaint of one of SLURM's commands, without the command's name before every line."""
    lines = (line.split(": error: ", 1)[-1].split("error: ", 1)[-1].strip() for line in message.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))


def submit(script: Path, *options: str, env: Mapping[str, str] | None = None) -> str:
    """Queues a script: the job's number."""
    return slurm("sbatch", "--parsable", *options, str(script), env=env).strip().split(";")[0]


def jobs(ids: Iterable[str]) -> dict[str, QueuedJob]:
    """What SLURM knows of these jobs, from the queue and, where there is one, from accounting; by number."""
    wanted = set(ids)
    if not wanted:
        return {}
    # Of all jobs: `squeue -j` fails altogether when one of them is too old.
    found = _queue(wanted)
    missing = wanted - found.keys()
    return {**found, **(_accounting(missing) if missing else {})}


def _queue(wanted: set[str]) -> dict[str, QueuedJob]:
    text = slurm(
        "squeue", "--noheader", "--array", "--user", str(os.getuid()), "--states", "all", "-o", "%i|%T|%r|%L|%N"
    )
    found = {}
    for line in text.splitlines():
        number, state, reason, left, nodes = line.split("|")
        if number in wanted:
            idle = state not in ALIVE
            found[number] = QueuedJob(number, state, "" if reason == "None" else reason, "" if idle else left, nodes)
    return found


def _accounting(wanted: set[str]) -> dict[str, QueuedJob]:
    try:
        text = slurm(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--format=JobID,State,Reason,NodeList",
            "--jobs",
            ",".join(sorted(wanted)),
        )
    except (FileNotFoundError, RuntimeError):
        # "Slurm accounting storage is disabled": the run's own files must do.
        return {}
    found = {}
    for line in text.splitlines():
        number, state, reason, nodes = line.split("|")
        state = state.split(" ")[0]  # CANCELLED by 1000
        found[number] = QueuedJob(number, state, "" if reason == "None" else reason, "", nodes)
    return found
