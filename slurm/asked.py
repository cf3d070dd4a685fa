"""What is asked of SLURM, and whether it can be meant: checked first, and also where no controller answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slurm.request import SBATCH
from slurm.script import Job

if TYPE_CHECKING:
    from launch.training.training import Training

#: Minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS; only the first field may be of any size.
TIME = re.compile(
    r"\d+(:[0-5]?\d){0,2}|\d+-([01]?\d|2[0-3])(:[0-5]?\d){0,2}|unlimited|infinite", re.IGNORECASE | re.ASCII
)
GPUS = re.compile(r"(?:[\w.-]+:)?(\d+)", re.ASCII)
MEMORY = re.compile(r"\d+[KMGTP]?B?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Request:
    """A request for a job: the options of the command line, with site defaults.

    Args:
        job: the job, without its runs.
        training: the training.
        array: option of the recipe -> its values, one task for each combination.
        chain: number of jobs, each of which continues the one before.
        gpu_memory: memory of one GPU in GiB; None: unknown, and not checked.
        trust_paths: whether to trust that the compute nodes see folders that look local.
    """

    job: Job
    training: Training
    array: Mapping[str, Sequence[str]] = field(default_factory=dict)
    chain: int = 1
    gpu_memory: float | None = None
    trust_paths: bool = False


def check_request(request: Request) -> None:
    """Checks the numbers and times of a request.

    Raises:
        ValueError: one is out of range or malformed; one line.
    """
    job = request.job
    words = {name: getattr(job, name) for name in ("name", "gpus_per_node", *SBATCH, "container", "stage")}
    for name, value in [*words.items(), *(("sbatch", option) for option in job.extra)]:
        if value is not None and not value.isprintable():
            raise ValueError(f"--{name.replace('_', '-')} {value!r}: must be one line without control characters")
        # A job without a name has the recipe's.
        if value is not None and not value.strip() and name != "name":
            raise ValueError(f"--{name.replace('_', '-')} is empty: give it a value, or leave it out")
    for name in ("nodes", "tasks_per_node", "cpus_per_task", "array_limit", "signal_lead"):
        value = getattr(job, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be 1 or more")
    if request.chain < 1:
        raise ValueError(f"--chain {request.chain}: must be 1 or more")
    if job.time is not None and not TIME.fullmatch(job.time):
        raise ValueError(f"--time {job.time}: write minutes, HH:MM:SS or DAYS-HH:MM:SS, such as 1-12:00:00")
    if job.mem is not None and not MEMORY.fullmatch(job.mem):
        raise ValueError(f"--mem {job.mem}: write a number and its unit, such as 200G")
    if request.gpu_memory is not None and not 0 < request.gpu_memory < math.inf:
        raise ValueError(f"--gpu-memory {request.gpu_memory:g}: must be a number of GiB, more than 0")
    limit = seconds(job.time) if job.time else None
    # SLURM may send the warning a minute early; a job that gets it before it trains would be requeued for ever.
    if limit is not None and limit < 2 * (job.signal_lead + 60):
        raise ValueError(
            f"--time {job.time}: the ranks save and leave {job.signal_lead} to {job.signal_lead + 60} seconds before "
            "its end, with little done by then: ask for more time, or for a smaller --signal-lead"
        )
    if job.gpus_per_node is not None and not GPUS.fullmatch(job.gpus_per_node):
        raise ValueError(f"--gpus-per-node {job.gpus_per_node}: write a number, or TYPE:NUMBER such as h100:4")


def seconds(time: str) -> int | None:
    """Converts a time limit in SLURM's notation to seconds; None for no limit."""
    days, dash, rest = time.rpartition("-")
    if not rest[0].isdecimal():
        return None
    fields = [int(number) for number in rest.split(":")]
    # "30" and "30:00" are minutes, "1-12" is hours.
    hours = [0, *fields] if not dash and len(fields) < 3 else fields
    hours += [0] * (3 - len(hours))
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(hours, (3600, 60, 1), strict=True))


def ranks_per_node(gpus_per_node: str | None, tasks_per_node: int | None) -> int:
    """The number of ranks on each node: one for each GPU; on a CPU partition ``tasks_per_node``, by default 1.

    Raises:
        ValueError: both are given and differ.
    """
    found = GPUS.fullmatch(gpus_per_node or "")
    gpus = int(found[1]) if found else None
    if gpus and tasks_per_node is not None and tasks_per_node != gpus:
        raise ValueError(f"--tasks-per-node {tasks_per_node}: with GPUs there is one rank for each ({gpus})")
    if gpus is not None:
        return gpus
    return 1 if tasks_per_node is None else tasks_per_node


#: Runs of an array; SLURM itself takes 1,001 where nobody has set another number.
MOST_TASKS = 10_000


def array(options: Sequence[str]) -> dict[str, list[str]]:
    """Reads the options of ``--array``.

    Args:
        options: such as ``["seed_everything=0-3", "model.beta=1,4"]``.

    Returns:
        option of the recipe -> its values.

    Raises:
        ValueError: one is not of this form, or there are more than ``MOST_TASKS`` combinations.
    """
    found: dict[str, list[str]] = {}
    for option in options:
        name, equals, values = option.partition("=")
        if not equals or not name or not values:
            raise ValueError(
                f"--array {option}: write OPTION=VALUE,VALUE or OPTION=FIRST-LAST, such as seed_everything=0-7"
            )
        span = re.fullmatch(r"(\d+)-(\d+)", values)
        if span and int(span[2]) - int(span[1]) >= MOST_TASKS:
            raise ValueError(f"--array {option}: more than {MOST_TASKS:,} runs")
        found[name] = [str(n) for n in range(int(span[1]), int(span[2]) + 1)] if span else values.split(",")
    if (runs := math.prod(map(len, found.values()))) > MOST_TASKS:
        raise ValueError(f"--array: {runs:,} runs, and {MOST_TASKS:,} at most can be queued")
    return found
