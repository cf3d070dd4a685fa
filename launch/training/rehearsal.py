"""Builds trainings that somebody else will train: other processes, other machines."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

from datamodules.assets.fetching import fetch
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import find
from launch.training.lightning_cli import GessoCLI, build, check_data, with_recipes
from launch.training.provisions import provide_styles, provide_weights


def rehearse(argv: Sequence[str]) -> GessoCLI:
    """The training that ``gesso fit`` would make of its arguments, on a CPU; nothing of it stays behind.

    Raises:
        ValueError, FileNotFoundError: the arguments, in one line.
    """
    inherited = os.environ.pop("GESSO_RUN", None)
    try:
        # What this machine's CPU can do does not matter to the one that will train.
        with contextlib.redirect_stderr(io.StringIO()):
            return build(with_recipes([*argv, "--trainer.accelerator=cpu"]))
    finally:
        os.environ.pop("GESSO_RUN", None)
        if inherited is not None:
            os.environ["GESSO_RUN"] = inherited


def check(cli: GessoCLI) -> None:
    """Finds, now, what would go wrong later: data that does not fit, a metric that nobody measures."""
    check_data(cli)
    if checkpoints := find(cli.trainer, Checkpoints):
        checkpoints.find_monitor(cli.trainer)


def provide(cli: GessoCLI) -> None:
    """Fetches here what family and evaluation need: compute nodes seldom reach the internet."""
    model: Any = cli.model
    provide_weights(model)
    provide_styles(model)
    evaluation = find(cli.trainer, Evaluation)
    for name in evaluation.published_weights() if evaluation else ():
        fetch(name)
