"""`gesso slurm submit|status|logs|cancel|resume`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from slurm.request import add_options, given, job, many, with_site_defaults


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("slurm", help="queue, follow, cancel and resume trainings on a SLURM cluster")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_submit(verbs)

    status = verbs.add_parser("status", help="a table of the runs that were queued")
    status.add_argument("runs", nargs="*", metavar="RUN", help="only these runs (default: all under --root)")
    status.add_argument("--root", default="runs", help="folder of the run folders (default: runs)")
    status.set_defaults(run=_status)

    logs = verbs.add_parser("logs", help="print a run's log")
    logs.add_argument("folder", metavar="RUN")
    logs.add_argument("--rank", type=int, metavar="R", help="log of this rank (default: the first)")
    logs.add_argument("--job", action="store_true", help="log of the job's script")
    logs.add_argument("--follow", "-f", action="store_true", help="print new lines until the run ends")
    logs.set_defaults(run=_logs)

    cancel = verbs.add_parser("cancel", help="stop a run, which saves a checkpoint first")
    cancel.add_argument("folder", metavar="RUN")
    cancel.set_defaults(run=_cancel)

    resume = verbs.add_parser("resume", help="queue a stopped run again")
    resume.add_argument("folder", metavar="RUN")
    resume.set_defaults(run=_resume)

    # Called by a job's script at its beginning and its end; not for users.
    stage = verbs.add_parser("stage")
    stage.add_argument("folder", metavar="RUN")
    stage.set_defaults(run=_stage)
    settle = verbs.add_parser("settle")
    settle.add_argument("folder", metavar="RUN")
    settle.add_argument("--exit-code", type=int, required=True)
    settle.set_defaults(run=_settle)


def _add_submit(verbs: argparse._SubParsersAction) -> None:
    submit = verbs.add_parser(
        "submit",
        help="check a training and queue it",
        usage="gesso slurm submit [options] -- fit --config RECIPE [overrides]",
        description="Checks the training command and the request, writes the run folder with the job's script, and "
        "queues it, with one task for each GPU. Options that stay the same can be kept in ~/.config/gesso/slurm.yaml "
        "or slurm.yaml (`partition: gpu`).",
    )
    add_options(submit, cores_of="a rank")
    submit.add_argument(
        "--tasks-per-node", type=int, metavar="R", help="ranks on each node of a CPU partition (default: 1)"
    )
    submit.add_argument("--name", help="name of job and run folder (default: the recipe's)")
    submit.add_argument(
        "--array",
        action="append",
        metavar="OPTION=V,V",
        help="one run for each value: seed_everything=0-7; repeat it for combinations",
    )
    submit.add_argument("--array-limit", type=int, metavar="K", help="how many runs of an array run at once")
    submit.add_argument("--chain", type=int, metavar="K", help="queue K jobs, each of which continues the one before")
    submit.add_argument("--container", metavar="IMAGE", help="Apptainer's *.sif, or an image for pyxis")
    submit.add_argument("--mount", action="append", metavar="SOURCE[:TARGET]", help="folder that the container sees")
    submit.add_argument("--env", action="append", metavar="NAME=VALUE", help="environment variable of the training")
    submit.add_argument("--stage", metavar="FOLDER", help="copy shards to each node's own disk first: '$TMPDIR'")
    submit.add_argument("--gpu-memory", type=float, metavar="GIB", help="memory of one GPU: refuse what does not fit")
    submit.add_argument("--dry-run", action="store_true", help="print the script and queue nothing")
    submit.add_argument("training", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    submit.set_defaults(run=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    from slurm.submit import submit

    print(submit(_request(with_site_defaults(arguments)), dry_run=arguments.dry_run))
    return 0


def _request(options: dict[str, Any]) -> Any:
    from gesso.cli.fit import parse
    from slurm import asked, submit
    from slurm.script import GESSO

    training = [word for word in options["training"] if word != "--"] if options["training"] else []
    if not training or training[0] != "fit":
        raise ValueError("no training given: gesso slurm submit [options] -- fit --config RECIPE [overrides]")
    variables = [variable.partition("=") for variable in many(options["env"])]
    if wrong := [name for name, equals, _ in variables if not equals or not name.isidentifier()]:
        raise ValueError(f"--env {wrong[0]}: write NAME=VALUE")
    wanted = job(
        options,
        name=options["name"] or "",
        runs=(),
        folder=Path(),
        gesso=GESSO if options["container"] else submit.executable(),
        tasks_per_node=asked.ranks_per_node(options["gpus_per_node"], options["tasks_per_node"]),
        array_limit=options["array_limit"],
        container=options["container"],
        mounts=many(options["mount"]),
        env={**submit.carried(), **{name: value for name, _, value in variables}},
        stage=options["stage"],
    )
    return asked.Request(
        job=wanted,
        training=parse(training[1:]),
        array=asked.array(many(options["array"])),
        chain=given(options["chain"], 1),
        gpu_memory=options["gpu_memory"],
        trust_paths=bool(options["trust_paths"]),
    )


def _status(arguments: argparse.Namespace) -> int:
    from slurm import follow

    runs = [_run(name) for name in arguments.runs] or follow.runs_below(Path(arguments.root))
    if not runs:
        print(f"no run under {arguments.root}/ was queued by `gesso slurm submit`", file=sys.stderr)
        return 0
    follow.show(follow.standings(runs))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from slurm import follow

    run = _run(arguments.folder)
    rank = None if arguments.job else arguments.rank or 0
    if not arguments.follow:
        follow.copy(follow.log_file(run, rank))
        return 0
    # A job that waits has printed nothing yet.
    while True:
        try:
            file = follow.log_file(run, rank)
            break
        except FileNotFoundError:
            if not _alive(run):
                raise
            time.sleep(follow.INTERVAL)
    follow.copy(file, until=follow.rate_limited(lambda: not _alive(run)))
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    from slurm import queue

    run = _run(arguments.folder)
    alive = _alive(run)
    if not alive:
        raise ValueError(f"{run.path}: none of its jobs waits or runs")
    queue.slurm("scancel", *alive)
    if run.info().get("state") == "queued":
        run.update(state="cancelled")
    print(f"cancelled {', '.join(alive)}; resume with: gesso slurm resume {shlex.quote(str(run.path))}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from launch.runs.folder import is_over, this_process
    from launch.training.training import Training
    from slurm import queue
    from slurm.attempts import Attempt, note_job, record_attempt

    run = _run(arguments.folder)
    info = run.info()
    if is_over(info):
        raise ValueError(f"{run.path} has finished; to train for longer: gesso fit --resume RUN --run.kimg KIMG")
    if alive := _alive(run):
        raise ValueError(f"{run.path}: job {alive[0]} waits or runs already")
    try:
        script, task = Path(info["slurm"]["script"]), info["slurm"]["task"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run.path / 'run.json'} does not say how the run was queued: queue it anew with gesso slurm submit "
            f"--config {shlex.quote(str(run.config))} --checkpoint {shlex.quote(str(run.path))}"
        ) from error
    # What the job would find out after hours of waiting.
    Training(resume=run.path).parse()
    number = queue.submit(script, *([] if task is None else [f"--array={task}"]))
    job = number if task is None else f"{number}_{task}"
    # Earlier failures no longer count.
    record_attempt(run, Attempt(job, 0, 0, "", time.time(), "requeue", "resumed by hand"))
    note_job(run, job)
    run.update(state="queued", error=None, owner=this_process())
    print(f"queued job {job}")
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from slurm.stage import stage_node

    stage_node(_run(arguments.folder))
    return 0


def _settle(arguments: argparse.Namespace) -> int:
    from slurm.attempts import settle

    print(settle(_run(arguments.folder), arguments.exit_code))
    return 0


def _run(path: str) -> Any:
    from launch.runs.folder import open_run

    run = open_run(path)
    if not (run.path / "slurm").is_dir():
        raise ValueError(f"{path}: this run was not queued by `gesso slurm submit`")
    return run


def _alive(run: Any) -> list[str]:
    """The numbers of a run's jobs that wait or run."""
    from slurm import queue
    from slurm.attempts import submitted

    return [job.id for job in queue.jobs(submitted(run)).values() if job.alive]
