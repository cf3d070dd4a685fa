"""The typed description of a job, and its sbatch script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.streaming.staging import STAGED

#: Name of the command in scripts, where it is found on the path.
GESSO = "gesso"


@dataclass(frozen=True)
class Job:
    """One training on a cluster, or an array of trainings, with one task for each rank.

    Args:
        name: the job's name; "" for the recipe's.
        runs: the prepared run folder; for an array one for each task.
        folder: folder of the script and of its log.
        gesso: path of the ``gesso`` executable on the compute nodes, or in the container.
        command: the command that submitted the job, as a comment in the script.
        nodes: number of nodes.
        tasks_per_node: ranks on each node; one for each GPU.
        gpus_per_node: ``4`` or ``h100:4``; None: a CPU partition.
        cpus_per_task: cores of each rank.
        time: time limit, in SLURM's notation; None: the partition's.
        partition, account, qos, constraint, mem, dependency: as for sbatch; None: the cluster's default.
        array_limit: how many tasks of an array run at once; None: no limit.
        container: an Apptainer image (``*.sif``), or one for pyxis (``docker://...``, ``*.sqsh``).
        mounts: folders that the container sees: ``SOURCE:TARGET``, or one path for both.
        env_setup: shell lines that run first (``module load ...``).
        env: environment variables of the training.
        extra: further sbatch options, verbatim.
        stage: folder on each node's disk for copies of shards, may hold shell variables (``$TMPDIR``); None: no copies.
        signal_lead: seconds before the time limit at which the ranks save and leave.
    """

    name: str
    runs: Sequence[Path]
    folder: Path
    gesso: str
    command: str
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: str | None = None
    cpus_per_task: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mem: str | None = None
    dependency: str | None = None
    array_limit: int | None = None
    container: str | None = None
    mounts: Sequence[str] = ()
    env_setup: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    extra: Sequence[str] = ()
    stage: str | None = None
    signal_lead: int = 120

    @property
    def is_array(self) -> bool:
        return len(self.runs) > 1

    def log(self, task: int | str) -> Path:
        """The log of the job's script; in an array, of the script of task number ``task``."""
        return self.folder / (f"task{task}.log" if self.is_array else "job.log")

    @property
    def output(self) -> str:
        """The log, as sbatch's ``--output`` names it: a ``%`` of the folder's own is none of its patterns."""
        return f"{str(self.folder).replace('%', '%%')}/{self.log('%a').name}"


def render(job: Job) -> str:
    """The sbatch script of a job."""
    parts = [
        "#!/bin/bash",
        *directives(job),
        "",
        *comment(job.command),
        *_run(job),
        *job.env_setup,
        *exports(job),
        RENDEZVOUS,
        *_staging(job),
        _training(job),
        _decision(job),
    ]
    return "\n".join(parts)


def directives(job: Job) -> list[str]:
    """The ``#SBATCH`` lines."""
    last = len(job.runs) - 1
    array = f"0-{last}" + (f"%{job.array_limit}" if job.array_limit else "")
    options: dict[str, object] = {
        "job-name": job.name,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "constraint": job.constraint,
        "nodes": job.nodes,
        # Always given: with --ntasks alone SLURM may spread ranks unevenly over nodes, and they do not find each other.
        "ntasks-per-node": job.tasks_per_node,
        "gpus-per-node": job.gpus_per_node,
        "cpus-per-task": job.cpus_per_task,
        "mem": job.mem,
        "time": job.time,
        "array": array if job.is_array else None,
        "dependency": job.dependency,
        # Without "B:": the ranks get the signal, not this script.
        "signal": f"USR1@{job.signal_lead}",
        "open-mode": "append",
        "output": job.output,
    }
    lines = [f"#SBATCH --{name}={_quoted(str(value))}" for name, value in options.items() if value is not None]
    return [*lines, "#SBATCH --requeue", *(f"#SBATCH {option}" for option in job.extra)]


def exports(job: Job) -> list[str]:
    """Shell lines that set the training's environment variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in job.env.items()]


def comment(command: str) -> list[str]:
    """A command as lines of a shell's comment, whatever line breaks it holds."""
    return [f"# {line}" for line in command.splitlines()]


def _quoted(value: str) -> str:
    """A value as sbatch reads it in a line of ``#SBATCH``: spaces and ``#`` only count inside of quotes."""
    if re.fullmatch(r"[^\s\"'#\\]+", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _run(job: Job) -> list[str]:
    if not job.is_array:
        return [f"run={shlex.quote(str(job.runs[0]))}", *_LOGS]
    folders = "\n".join(f"    {shlex.quote(str(run))}" for run in job.runs)
    return [f"runs=(\n{folders}\n)", "run=${runs[$SLURM_ARRAY_TASK_ID]}", *_LOGS]


#: Shell lines: the folder of the ranks' logs, as srun's ``--output`` names it.
_LOGS = ["logs=${run//%/%%}/logs"]


#: Shell lines: the address at which the ranks meet; and signals are left to the ranks.
RENDEZVOUS = """\
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Differs between jobs, since two of them may share a node.
MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export MASTER_ADDR MASTER_PORT

# SLURM's signals are for the ranks; this script waits for them, to decide what comes next.
trap : TERM USR1
"""


def _staging(job: Job) -> list[str]:
    if job.stage is None:
        return []
    log = '--open-mode=append --output="$logs/stage-node%n.log"'
    return [
        "# Copies of the shards that the ranks of each node will read; without them, training reads the shared ones.",
        f'export {STAGED}="{job.stage}"',
        f'srun --ntasks-per-node=1 --ntasks={job.nodes} {log} {_inside(job)} slurm stage "$run"\n',
    ]


def _training(job: Job) -> str:
    options = ["--kill-on-bad-exit=1", "--open-mode=append", '--output="$logs/rank%t.log"']
    # Since SLURM 22.05 srun no longer takes this over from sbatch.
    options += [f"--cpus-per-task={job.cpus_per_task}"] if job.cpus_per_task else []
    return f'srun {" ".join(options)} \\\n    {_inside(job)} fit --resume "$run"\ncode=$?\n'


def _inside(job: Job, *, alone: bool = False) -> str:
    """The gesso command, in the job's container if there is one; ``alone``: not as an argument of srun."""
    if job.container is None:
        return shlex.quote(job.gesso)
    image = shlex.quote(job.container)
    if job.container.endswith(".sif"):
        binds = "".join(f" --bind {shlex.quote(mount)}" for mount in job.mounts)
        return f"apptainer exec{' --nv' if job.gpus_per_node else ''}{binds} {image} {job.gesso}"
    mounts = f" --container-mounts={shlex.quote(','.join(job.mounts))}" if job.mounts else ""
    pyxis = f"--container-image={image}{mounts}"
    return f"srun --nodes=1 --ntasks=1 {pyxis} {job.gesso}" if alone else f"{pyxis} {job.gesso}"


def _decision(job: Job) -> str:
    return f"""\
# Cancelled, or already requeued by SLURM itself, maybe running elsewhere: nothing is left to decide.
now=$(scontrol --oneliner show job "$SLURM_JOB_ID")
[[ $now == *" Restarts=${{SLURM_RESTART_COUNT:-0}} "* ]] || exit "$code"
[[ $now == *" JobState=RUNNING "* || $now == *" Reason=TimeLimit "* ]] || exit "$code"
case $({_inside(job, alone=True)} slurm settle "$run" --exit-code "$code") in
    requeue) scontrol requeue "$SLURM_JOB_ID" ;;
    pass) code=0 ;;
esac
exit "$code"
"""
