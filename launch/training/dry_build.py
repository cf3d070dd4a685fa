"""Builds and checks trainings that will run in other processes or on other machines."""

from __future__ import annotations

import contextlib
import io

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import find
from launch.training.family_files import load_all
from launch.training.lightning_cli import GessoCLI, check_data
from launch.training.training import Training


def dry_build(training: Training) -> GessoCLI:
    """Builds a training on a CPU, wherever it will run; writes no file.

    Returns:
        The training, whose ``config`` is the one that was asked for: what this rehearsal changes reaches no file.

    Raises:
        ValueError, FileNotFoundError: a wrong option or a missing file; one line.
    """
    # Notices about this CPU do not matter to the machine that will train.
    with contextlib.redirect_stderr(io.StringIO()):
        return training.build(accelerator="cpu")


def check(cli: GessoCLI) -> None:
    """Checks what would fail later: data that does not fit the family, a monitored metric that is never measured, too
    few pictures for a metric.

    Raises:
        ValueError: one line.
    """
    check_data(cli)
    if checkpoints := find(cli.trainer, Checkpoints):
        checkpoints.find_monitor(cli.trainer, cli.model)
    if evaluation := find(cli.trainer, Evaluation):
        evaluation.check(cli.model, cli.datamodule)


def prefetch(cli: GessoCLI) -> None:
    """Loads the weights that family and evaluation need, downloading them: compute nodes often have no internet.

    Raises:
        ValueError: a metric cannot be measured with them; one line.
    """
    load_all(cli.model)
    if evaluation := find(cli.trainer, Evaluation):
        evaluation.load(cli.model)
