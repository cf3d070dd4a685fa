"""`gesso prune`."""

from __future__ import annotations

import argparse
import shlex
import sys

from gesso.cli import fit


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "prune",
        help="a run with narrower networks that begin with another run's heaviest channels",
        description="Drops the channels of a run's networks that weigh least, and trains on what is left, as a new run "
        "with the options of the old one. Options of the training follow after --: -- --run.kimg 20.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the trained run")
    parser.add_argument("--channels", type=float, default=0.5, metavar="SHARE", help="kept of each layer (%(default)s)")
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    """Trains; the exit code is that of ``gesso fit``."""
    options = [word for word in arguments.overrides if word != "--"]
    given = fit.parse(options)
    if given.recipes or given.checkpoint:
        raise ValueError("gesso prune takes the run's own recipe and weights: leave out --config and --checkpoint")
    from launch.training.pruning import pruning

    words = ["gesso", "prune", arguments.run_folder, "--channels", f"{arguments.channels:g}", "--", *options]
    training, widths = pruning(arguments.run_folder, arguments.channels, given.overrides, command=shlex.join(words))
    for width in widths:
        print(f"gesso: {width.option}: {width.before} to {width.after}", file=sys.stderr)
    return fit.exit_code(training.fit())
