"""`gesso tune`."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, get_args

from lightning_modules.metrics.specs import Direction
from slurm.request import add_options
from tune.choices import REDUCTION, Scheduler, Search


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "tune",
        help="sweep the weights of a recipe's losses: gesso tune --config RECIPE --space SPACE --metric M",
        description="Trains a recipe with many values of its options (loss weights, learning rates), and finds the "
        "best. Options that `gesso tune` does not know are the recipe's: --data.path shards/mnist",
    )
    what = parser.add_argument_group("what")
    what.add_argument("--config", action="append", default=[], metavar="RECIPE", help="packaged recipe or YAML file")
    what.add_argument("--space", metavar="SPACE", help="YAML file, or a ready one (`gesso tune --list-spaces`)")
    what.add_argument("--metric", action="append", default=[], help="fid, val/kl ...; repeat for a Pareto front")
    what.add_argument(
        "--mode", action="append", default=[], choices=get_args(Direction), help="for each metric (default: its own)"
    )
    what.add_argument(
        "--num-samples", type=int, default=16, metavar="N", help="trials, or of a grid each cell's (default: 16)"
    )
    what.add_argument("--resume", metavar="SWEEP", help="continue a sweep that was stopped or killed")
    what.add_argument("--report", metavar="SWEEP", help="write the report of a sweep from its results so far")
    what.add_argument("--list-spaces", action="store_true", help="list the packaged spaces")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--search", choices=get_args(Search), default="random", help="random draws and grids, or Optuna's TPE"
    )
    how.add_argument(
        "--scheduler", choices=get_args(Scheduler), default="none", help="which trials continue (default: all)"
    )
    how.add_argument("--grace-kimg", type=float, metavar="K", help="asha, median: length that every trial trains")
    how.add_argument(
        "--reduction",
        type=float,
        default=REDUCTION,
        metavar="R",
        help=f"asha: one in R trials continues at each rung (default: {REDUCTION:g})",
    )
    how.add_argument(
        "--perturb-kimg", type=float, metavar="K", help="pbt, pb2: interval at which trials are copied and changed"
    )
    how.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the first trial has the recipe's own values, where they can be drawn (default: it has)",
    )
    how.add_argument("--seed", type=int, default=0, help="seed of the drawn values (default: 0)")
    where = parser.add_argument_group("where")
    where.add_argument("--cpus-per-trial", type=float, metavar="C", help="cores of a rank (default: 1)")
    where.add_argument(
        "--gpus-per-trial", type=float, default=0.0, metavar="G", help="GPUs of a trial; 0.5: two trials share one"
    )
    where.add_argument(
        "--ranks-per-trial", type=int, metavar="R", help="processes of a trial (default: one for each GPU)"
    )
    where.add_argument("--concurrent", type=int, metavar="K", help="trials at once (default: as many as fit)")
    where.add_argument("--address", help="address of a running Ray cluster (default: Ray is started on this machine)")
    where.add_argument("--root", default="sweeps", help="folder of the sweeps (default: sweeps)")
    where.add_argument("--name", help="name of the sweep (default: the recipe's)")
    # Called by a sweep's SLURM job on each node; not for users.
    parser.add_argument("--node", metavar="SWEEP", help=argparse.SUPPRESS)
    _add_slurm(parser)
    parser.set_defaults(run=_tune, overrides=None)


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on SLURM", "The site defaults of `gesso slurm submit` apply here, too.")
    group.add_argument("--slurm", action="store_true", help="queue the sweep as one job, with Ray on its nodes")
    add_options(group, cores_of="each node")


def _tune(arguments: argparse.Namespace) -> int:
    if arguments.list_spaces:
        from tune.space import spaces

        for name, about in spaces().items():
            print(f"{name:14} {about}")
        return 0
    if arguments.report:
        from tune.outcome import conclude
        from tune.page import write_page
        from tune.sweep import open_sweep
        from tune.watch import read_rows

        sweep = open_sweep(arguments.report)
        print(write_page(sweep, conclude(sweep, read_rows(sweep))))
        return 0
    if arguments.node:
        from tune.nodes import serve

        return serve(Path(arguments.node))
    if arguments.resume:
        from tune.sweep import open_sweep

        if arguments.overrides or arguments.config:
            raise ValueError("--resume continues with the sweep's own recipe: leave out the recipe and its options")
        sweep = open_sweep(arguments.resume)
    else:
        sweep = prepare(arguments)
    if arguments.slurm:
        from tune.job import submit

        print(submit(sweep, arguments))
        return 0
    # Of a cluster that is coming up.
    nodes = arguments.nodes if arguments.address else None
    return conduct(sweep, arguments.address, nodes=nodes or 1)


def prepare(arguments: argparse.Namespace) -> Any:
    """Checks a sweep and writes its folder.

    Raises:
        ValueError, FileNotFoundError: one line; nothing was written.
    """
    from dataclasses import replace

    from gesso.cli.fit import parse
    from launch.callbacks.evaluation import Evaluation
    from launch.callbacks.lookup import find
    from launch.runs.folder import RunFolder
    from launch.training.dry_build import check, dry_build, prefetch
    from launch.training.lightning_cli import save_config
    from tune.baseline import NoBaseline, baseline
    from tune.checks import check_space, check_sweep, check_values, find_objectives
    from tune.draw import count, different
    from tune.space import find_space, read_space
    from tune.sweep import Sweep, new_sweep_path

    for option in ("config", "space", "metric"):
        if not getattr(arguments, option):
            raise ValueError(f"--{option} is missing: gesso tune --config RECIPE --space SPACE.yaml --metric METRIC")
    file = find_space(arguments.space)
    space = read_space(file)
    given = parse(arguments.overrides or ())
    training = replace(given, recipe=[*arguments.config, *given.recipes])
    check_space(training, space)
    cli = dry_build(training)
    check(cli)
    check_values(training, space)
    prefetch(cli)
    evaluation = find(cli.trainer, Evaluation)
    assert evaluation is not None
    kimg = float(cli.config_init.run.kimg)
    sweep = Sweep(
        path=new_sweep_path(arguments.root, arguments.name or str(cli.config_init.run.name)),
        command=shlex.join(["gesso", *sys.argv[1:]]),
        objectives=find_objectives(arguments.metric, _modes(arguments), cli),
        num_samples=arguments.num_samples,
        search=arguments.search,
        scheduler=arguments.scheduler,
        kimg=kimg,
        every_kimg=evaluation.every_kimg,
        grace_kimg=_given(arguments.grace_kimg, max(evaluation.every_kimg, kimg / 16)),
        reduction=arguments.reduction,
        perturb_kimg=_given(arguments.perturb_kimg, max(evaluation.every_kimg, kimg / 16)),
        placement=_placement(arguments),
        concurrent=arguments.concurrent,
        seed=arguments.seed,
    )
    check_sweep(sweep, space)
    if arguments.baseline:
        try:
            sweep = replace(sweep, baseline=baseline(cli.config.as_dict(), sweep, space))
        except NoBaseline as why:
            print(f"no trial has the recipe's own values: {why}", file=sys.stderr)
    # A killed trial continues from its last report, and each report has its pictures.
    for part in (cli.config.checkpoints, cli.config.previews):
        part.every_kimg = min(part.every_kimg, evaluation.every_kimg)
    try:
        save_config(cli, RunFolder(sweep.path))
        shutil.copyfile(file, sweep.path / "space.yaml")
        sweep.save()
    except OSError:
        shutil.rmtree(sweep.path, ignore_errors=True)
        raise
    if (most := different(space)) is not None and most < count(sweep):
        print(
            f"the space holds {most} different trials, fewer than {count(sweep)}: the others repeat them; set "
            "--num-samples lower, or sweep seed_everything as well",
            file=sys.stderr,
        )
    return sweep


def conduct(sweep: Any, address: str | None, *, nodes: int = 1) -> int:
    """Runs a sweep, writes its report and prints a summary; returns the exit code."""
    from tune.drive import cluster, run
    from tune.outcome import conclude, summary
    from tune.page import write_page

    shown = os.path.relpath(sweep.path)
    with cluster(sweep.placement, address, nodes=nodes):
        print(f"sweep: {shown}", file=sys.stderr)
        rows = run(sweep)
    outcome = conclude(sweep, rows)
    write_page(sweep, outcome)
    print(summary(sweep, outcome))
    if not outcome.over:
        print(f"stopped; continue with: {sweep.resume_command()}", file=sys.stderr)
        return 130
    return 0 if outcome.chosen else 1


def _modes(arguments: argparse.Namespace) -> list[Direction | None]:
    modes = arguments.mode or [None] * len(arguments.metric)
    if len(modes) != len(arguments.metric):
        raise ValueError(f"{len(arguments.metric)} --metric and {len(modes)} --mode: give one --mode for each metric")
    return modes


def _placement(arguments: argparse.Namespace) -> Any:
    from tune.sweep import Placement

    gpus = arguments.gpus_per_trial
    if not 0 <= gpus < float("inf"):
        raise ValueError(f"--gpus-per-trial {gpus}: must be 0 or more")
    ranks = arguments.ranks_per_trial or max(1, int(gpus))
    return Placement(ranks, _given(arguments.cpus_per_trial, 1.0), gpus / ranks if ranks > 1 else gpus)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
