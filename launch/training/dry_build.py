"""Builds trainings that somebody else will train: other processes, other machines."""

from __future__ import annotations

import contextlib
import io

from datamodules.assets.fetching import fetch
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import find
from launch.training.lightning_cli import GessoCLI, check_data
from launch.training.provisions import provide_pictures, provide_weights
from launch.training.training import Training


def dry_build(training: Training) -> GessoCLI:
    """Builds a training on a CPU, wherever it will run; nothing of it stays behind.

    Raises:
        ValueError, FileNotFoundError: what was asked for, in one line.
    """
    # What this machine's CPU can do does not matter to the one that will train.
    with contextlib.redirect_stderr(io.StringIO()):
        return training.changed({"trainer.accelerator": "cpu"}).build()


def check(cli: GessoCLI) -> None:
    """Finds, now, what would go wrong later: data that does not fit, a metric that nobody measures."""
    check_data(cli)
    if checkpoints := find(cli.trainer, Checkpoints):
        checkpoints.find_monitor(cli.trainer, cli.model)


def provide(cli: GessoCLI) -> None:
    """Fetches here what family and evaluation need: compute nodes seldom reach the internet."""
    provide_weights(cli.model)
    provide_pictures(cli.model)
    evaluation = find(cli.trainer, Evaluation)
    for name in evaluation.published_weights(cli.model) if evaluation else ():
        fetch(name)
