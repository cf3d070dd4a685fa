"""What one asks of a cluster: options that all commands share which queue a job, and a cluster's habits for them."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slurm.script import Job

#: Options that sbatch has under the same names.
SBATCH = {
    "time": "limit: minutes, HH:MM:SS or DAYS-HH:MM:SS",
    "partition": "partition",
    "account": "account",
    "qos": "quality of service",
    "constraint": "features of the nodes",
    "mem": "memory of a node, such as 200G",
    "dependency": "such as afterok:123",
}
#: What may stand in slurm.yaml: of every command, though one may have no use for some of them.
HABITS = (
    *("nodes", "gpus_per_node", "cpus_per_task", "env_setup", "sbatch", "signal_lead", "trust_paths"),
    *(name for name in SBATCH if name != "dependency"),
    *("tasks_per_node", "array_limit", "chain", "container", "mount", "env", "stage", "gpu_memory"),
)


def add_options(parser: Any, *, cores_of: str) -> None:
    """Adds the options that all such commands have.

    Args:
        parser: a parser, or a group of one.
        cores_of: what ``--cpus-per-task`` counts the cores of.
    """
    parser.add_argument("--nodes", type=int, metavar="N", help="number of nodes (default: 1)")
    parser.add_argument("--gpus-per-node", metavar="G", help="4 or h100:4; left out: a CPU partition")
    parser.add_argument("--cpus-per-task", type=int, metavar="C", help=f"cores of {cores_of}")
    for name, what in SBATCH.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=what)
    parser.add_argument(
        "--env-setup", action="append", metavar="LINE", help="shell line that comes first: 'module load cuda'"
    )
    parser.add_argument(
        "--sbatch", action="append", metavar="OPTION", help="any other option of sbatch: --sbatch=--exclusive"
    )
    parser.add_argument(
        "--signal-lead", type=int, metavar="S", help="seconds before the limit to save at (default: 120)"
    )
    parser.add_argument(
        "--trust-paths", action="store_true", default=None, help="the nodes see folders that look local"
    )


def with_habits(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed, and for what was not, the defaults of the user and of the project.

    Raises:
        ValueError: a file of defaults is not a mapping of known options.
    """
    from slurm import site

    options = vars(arguments)
    habits = site.defaults(HABITS)
    return {**options, **{n: value for n, value in habits.items() if n in options and options[n] in (None, [])}}


def job(options: dict[str, Any], **more: Any) -> Job:
    """The job that these options ask for.

    Args:
        options: as ``with_habits`` gives them.
        more: what else a ``Job`` has.
    """
    from slurm.script import Job

    shared: dict[str, Any] = {
        "command": shlex.join(["gesso", *sys.argv[1:]]),
        "nodes": given(options["nodes"], 1),
        "gpus_per_node": text(options["gpus_per_node"]),
        "cpus_per_task": options["cpus_per_task"],
        **{name: text(options[name]) for name in SBATCH},
        "env_setup": many(options["env_setup"]),
        "extra": many(options["sbatch"]),
        "signal_lead": given(options["signal_lead"], 120),
    }
    return Job(**{**shared, **more})


def text(value: Any) -> str | None:
    """A value as sbatch takes it; YAML makes numbers of some."""
    return None if value is None else str(value)


def given(value: int | None, default: int) -> int:
    return default if value is None else value


def many(value: Any) -> list[str]:
    """A repeated option, or a site file's list, mapping or single value."""
    if isinstance(value, dict):
        return [f"{name}={item}" for name, item in value.items()]
    return [] if value is None else [str(item) for item in value] if isinstance(value, list) else [str(value)]
