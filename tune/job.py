"""A sweep as one SLURM job of several nodes, which is requeued when it was interrupted."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil

from launch.training.dry_build import dry_build
from launch.training.training import Training
from slurm import queue
from slurm.asked import Request, check_request
from slurm.request import job, with_site_defaults
from slurm.script import RENDEZVOUS, Job, comment, directives, exports
from slurm.submit import carried, check_job, check_places, executable, places_of
from tune.nodes import AGAIN, TOKEN
from tune.sweep import Sweep


def submit(sweep: Sweep, arguments: argparse.Namespace) -> str:
    """Queues a sweep whose folder was written.

    Returns:
        Text for the user.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: one line; nothing was queued.
    """
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("sbatch not found: this machine belongs to no SLURM cluster; go to a login node")
    options = with_site_defaults(arguments)
    if not options["trust_paths"]:
        check_places({**places_of(dry_build(Training(sweep.recipe))), "sweep's folder": str(sweep.path)})
    asked = job(
        options,
        name=sweep.path.name,
        runs=[sweep.path],
        folder=sweep.path / "slurm",
        gesso=executable(),
        command=sweep.command,
        env=carried(),
    )
    check_request(Request(asked, Training(sweep.recipe)))
    text = render(asked)
    check_job(text, os.environ)
    for folder in (asked.folder, sweep.path / "logs"):
        folder.mkdir(exist_ok=True)
    token = sweep.path / TOKEN
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    script = asked.folder / "job.sh"
    script.write_text(text)
    number = queue.submit(script)
    shown = os.path.relpath(sweep.path)
    return (
        f"queued job {number}: a sweep on {asked.nodes} nodes\n  {shown}\n"
        f"follow it with: tail -f {shlex.quote(shown)}/logs/node0.log; stop it with: scancel {number}"
    )


def render(job: Job) -> str:
    """The sbatch script of a sweep, with one task on each node."""
    sweep = shlex.quote(str(job.runs[0]))
    cores = f"--cpus-per-task={job.cpus_per_task} " if job.cpus_per_task else ""
    return "\n".join(
        [
            "#!/bin/bash",
            *directives(job),
            "",
            *comment(job.command),
            f"sweep={sweep}",
            "logs=${sweep//%/%%}/logs",
            *job.env_setup,
            *exports(job),
            RENDEZVOUS,
            f'srun --kill-on-bad-exit=1 --open-mode=append --output="$logs/node%t.log" {cores}\\',
            f'    {shlex.quote(job.gesso)} tune --node "$sweep"',
            "code=$?",
            "# It was interrupted, and goes on where it was; what SLURM itself has requeued needs no asking.",
            f'if rm "$sweep/slurm/{AGAIN}" 2>/dev/null &&',
            '    [[ $(scontrol --oneliner show job "$SLURM_JOB_ID") == *" JobState=RUNNING "* ]]; then',
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )
