"""The options of all commands that queue a job, filled up with the site's defaults."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
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
#: Options that slurm.yaml may set, and what each takes. It serves all commands; each takes those it has.
SITE_OPTIONS: dict[str, type] = {
    **dict.fromkeys(("nodes", "cpus_per_task", "signal_lead", "tasks_per_node", "array_limit", "chain"), int),
    **dict.fromkeys((name for name in SBATCH if name != "dependency"), str),
    **dict.fromkeys(("gpus_per_node", "container", "stage"), str),
    **dict.fromkeys(("env_setup", "sbatch", "mount", "env"), list),
    "gpu_memory": float,
    "trust_paths": bool,
}
_TAKES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def add_options(parser: Any, *, cores_of: str) -> None:
    """Adds the options that all commands which queue a job share.

    Args:
        parser: a parser, or one of its groups.
        cores_of: for the help: what ``--cpus-per-task`` counts the cores of ("a rank").
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


def with_site_defaults(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as typed; those that were not typed come from the user's and the project's slurm.yaml.

    Raises:
        ValueError: a file of defaults is not a mapping of known options with values that these take.
    """
    from slurm import site

    options = vars(arguments)
    defaults = site.defaults(SITE_OPTIONS, convert)
    return {**options, **{n: value for n, value in defaults.items() if n in options and options[n] in (None, [])}}


def job(options: dict[str, Any], **more: Any) -> Job:
    """Makes a job from options.

    Args:
        options: as ``with_site_defaults`` returns them.
        more: further fields of ``Job``.
    """
    from slurm.script import Job

    shared: dict[str, Any] = {
        "command": shlex.join(["gesso", *sys.argv[1:]]),
        "nodes": given(options["nodes"], 1),
        "gpus_per_node": options["gpus_per_node"],
        "cpus_per_task": options["cpus_per_task"],
        **{name: options[name] for name in SBATCH},
        "env_setup": many(options["env_setup"]),
        "extra": many(options["sbatch"]),
        "signal_lead": given(options["signal_lead"], 120),
    }
    return Job(**{**shared, **more})


def convert(name: str, value: object) -> Any:
    """A value of slurm.yaml as its option takes it; None stays None, which sets nothing.

    Raises:
        ValueError: the option takes something else; names it.
    """
    kind = SITE_OPTIONS[name]
    if value is None:
        return None
    if kind is list:
        return _list(name, value)
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            # YAML reads some words as numbers: `time: 30`, `account: 815`.
            return int(str(value)) if kind is int else kind(value)
    raise ValueError(f"{name} is {value!r}: it takes {_TAKES[kind]}")


def _list(name: str, value: object) -> list[str]:
    items = [f"{key}={item}" for key, item in value.items()] if isinstance(value, dict) else value
    items = items if isinstance(items, list) else [items]
    values = list(value.values()) if isinstance(value, dict) else items
    if any(not isinstance(item, str | int | float) or isinstance(item, bool) for item in values):
        raise ValueError(f"{name} is {value!r}: it takes text, or a list of texts")
    return [str(item) for item in items]


def given(value: int | None, default: int) -> int:
    """``value``, or ``default`` where it is None."""
    return default if value is None else value


def many(value: Sequence[str] | None) -> list[str]:
    """A repeated option's values; [] where it was not given."""
    return list(value or ())
