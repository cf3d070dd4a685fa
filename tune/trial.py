"""One trial: a gesso training in a Ray worker, with a run folder like any other."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gesso.common.extras import needing
from launch.checkpoints import files
from launch.runs.folder import RunFolder
from launch.training.training import Training
from tune.journal import Journal, Report
from tune.kept import KeptStates, needed
from tune.ranks import environment, limit_threads, others, printing_to
from tune.reporting import Reporting
from tune.sweep import Sweep, open_sweep

with needing("tune"):
    from ray import tune

#: File in Ray's checkpoint that names the trial and the report of a state.
NOTE = "trial.json"


def run_trial(config: Mapping[str, Any], folder: str) -> None:
    """Trains one configuration, or continues its training.

    A trial continues from its run folder like any run, and first repeats those reports that Ray Tune may have missed.
    Where trials are paused or copied, Ray's checkpoint names the trial whose state to continue from.

    Args:
        config: the drawn options.
        folder: the sweep's folder.
    """
    sweep = open_sweep(folder)
    identity = tune.get_context().get_trial_id()
    run = RunFolder(sweep.trials / identity)
    info = run.info()
    if info.get("state") == "failed":
        # The sweep was killed before it recorded this failure; the trial would fail again.
        raise RuntimeError(str(info.get("error")))
    note = _note()
    if not sweep.population:
        _tell_again(identity, Journal(run.path).read(), note)
        if info.get("state") == "finished":
            return
    with taken_over(sweep, identity, note) if needed(sweep) else contextlib.nullcontext() as state:
        reporting = Reporting(
            sweep.space.active(config),
            tuple(sweep.objectives),
            states=needed(sweep),
            tell=partial(_tell, identity),
            parent=note["trial"] if note and note["trial"] != identity else None,
        )
        train(sweep, run, training(sweep, run, config, state), reporting)
    if reporting.stopped:
        sys.exit(0)


def training(sweep: Sweep, run: RunFolder, config: Mapping[str, Any], state: Path | None) -> Training:
    """The trial's training: a new one, or one that continues from its run folder or from ``state``."""
    placement = sweep.placement
    overrides = {
        "trainer.devices": 1,
        "trainer.num_nodes": placement.ranks,
        "trainer.accelerator": "gpu" if placement.gpus else "cpu",
        **sweep.space.active(config),
    }
    if run.config.is_file():
        return Training(overrides=overrides, resume=run.path, checkpoint=state)
    named = {"run.group": sweep.path.name, "run.name": run.path.name}
    return Training(sweep.recipe, {**named, **overrides}, folder=run.path, command=sweep.command)


def train(sweep: Sweep, run: RunFolder, training: Training, reporting: Reporting) -> None:
    """Trains in this process, and in as many others as the trial has ranks."""
    with (
        printing_to(run.path / "logs" / "rank0.log"),
        others(sweep.placement, training, run.path, states=reporting.states) as variables,
        environment(variables),
    ):
        # SLURM's name for the node, where there is one.
        print(f"on {os.environ.get('SLURMD_NODENAME') or platform.node()}")
        limit_threads(sweep.placement.cpus)
        replace(training, callbacks=[reporting]).fit()


@contextlib.contextmanager
def taken_over(sweep: Sweep, identity: str, note: Mapping[str, Any] | None) -> Iterator[Path | None]:
    """Context manager: yields a temporary copy of the state that a trial continues from; None for a new start.

    Checkpoints and reports of the run folder from after that state are deleted.

    Args:
        sweep: the sweep.
        identity: the trial's id.
        note: content of Ray's checkpoint: trial and images seen of the state. None, after the sweep was stopped: the
            trial's own last state that was reported.
    """
    run = RunFolder(sweep.trials / identity)
    donor, images = (note["trial"], note["images_seen"]) if note else (identity, _last_state(run))
    journal = Journal(run.path)
    if images == 0:
        # Nothing to go on from.
        shutil.rmtree(run.path, ignore_errors=True)
        yield None
        return
    if donor != identity:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    for path in run.checkpoints.glob("[0-9]" * 12):
        if int(path.name) > images:
            files.remove(path)
    with tempfile.TemporaryDirectory(dir=run.path, prefix="taken-") as scratch:
        state = KeptStates(sweep.trials / donor).take(images, Path(scratch) / "state")
        journal.keep([report for report in journal.read() if report.images_seen <= images])
        yield state


def _last_state(run: RunFolder) -> int:
    """Images seen of the newest state that also has a report; 0 if there is none."""
    reported = {report.images_seen for report in Journal(run.path).read()}
    return max(reported.intersection(KeptStates(run.path).images_seen()), default=0)


def _note() -> dict[str, Any] | None:
    """The note in Ray's checkpoint of this trial; None without a checkpoint."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return json.loads((Path(folder) / NOTE).read_text())


def _tell_again(identity: str, reports: Sequence[Report], note: Mapping[str, Any] | None) -> None:
    """Repeats the reports after Ray Tune's checkpoint; without one the last, since its schedulers recall the others."""
    unknown = [report for report in reports if report.images_seen > note["images_seen"]] if note else reports[-1:]
    for report in unknown:
        _tell(identity, report)


def _tell(identity: str, report: Report) -> None:
    """Passes a report to Ray Tune; returns when the trial may continue, else ends the thread."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NOTE).write_text(json.dumps({"trial": identity, "images_seen": report.images_seen}))
        tune.report(report.result, checkpoint=tune.Checkpoint.from_directory(folder))
