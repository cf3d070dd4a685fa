"""Calls SLURM's commands (sbatch, squeue, sacct) and reads their output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Seconds after which SLURM's controller is taken to be down.
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


#: What SLURM's commands say when they do not reach its controller.
UNREACHABLE = re.compile(
    r"unable to contact slurm controller|unable to resolve|unknown host|connection refused|communication connection|"
    r"configuration source|could not load.*slurm\.conf|no such file.*slurm\.conf",
    re.IGNORECASE,
)


class ControllerUnreachable(RuntimeError):
    """SLURM's controller does not answer: it has decided nothing."""


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue or accounting.

    Args:
        id: the job's number, in an array with the task's (``12_3``).
        state: ``RUNNING``, ``PENDING`` ...
        reason: why it waits or ended; "" for none.
        left: time left until its limit, as SLURM writes it; "" once the job has ended.
        nodes: the nodes it runs on.
    """

    id: str
    state: str
    reason: str = ""
    left: str = ""
    nodes: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in ALIVE


def slurm(command: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Runs one of SLURM's commands.

    Args:
        command: ``sbatch``, ``squeue`` ...
        arguments: its arguments.
        env: environment of the command; None: that of this process.

    Returns:
        The command's output.

    Raises:
        FileNotFoundError: the command is not installed here.
        ControllerUnreachable: the controller does not answer.
        RuntimeError: the command failed; its message in one line.
    """
    if shutil.which(command) is None:
        raise FileNotFoundError(f"{command} not found: this machine belongs to no SLURM cluster; go to a login node")
    try:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=TIMEOUT, env=env)
    except subprocess.TimeoutExpired:
        problem = f"{command} has not answered for {TIMEOUT} seconds: is SLURM's controller up?"
        raise ControllerUnreachable(problem) from None
    if done.returncode:
        error = error_text(done.stderr or done.stdout) or f"{command} failed ({done.returncode})"
        if UNREACHABLE.search(error):
            raise ControllerUnreachable(f"SLURM's controller cannot be reached from here: {error}")
        raise RuntimeError(error)
    # `sbatch --test-only` writes to stderr.
    return done.stdout or done.stderr


def error_text(message: str) -> str:
    """The error of one of SLURM's commands in one line, without the command's name before each of its lines."""
    lines = (line.split(": error: ", 1)[-1].split("error: ", 1)[-1].strip() for line in message.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))


def submit(script: Path, *options: str, env: Mapping[str, str] | None = None) -> str:
    """Queues a script with sbatch, and returns the job's number."""
    return slurm("sbatch", "--parsable", *options, str(script), env=env).strip().split(";")[0]


def jobs(ids: Iterable[str]) -> dict[str, QueuedJob]:
    """The jobs with these numbers that SLURM knows, from its queue and from accounting where that is set up.

    Returns:
        job's number -> job.
    """
    wanted = set(ids)
    if not wanted:
        return {}
    # The whole queue: `squeue -j` fails when one of the numbers is too old.
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
        # "Slurm accounting storage is disabled": the run folder alone says how the job ended.
        return {}
    found = {}
    for line in text.splitlines():
        number, state, reason, nodes = line.split("|")
        state = state.split(" ")[0]  # CANCELLED by 1000
        found[number] = QueuedJob(number, state, "" if reason == "None" else reason, "", nodes)
    return found
