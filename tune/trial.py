"""One trial: a gesso training in a worker of Ray's, with a run folder like any other."""

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
from tune.handed import Handed, needed
from tune.journal import Journal, Report
from tune.ranks import environment, limit_threads, others, printing_to
from tune.reporting import Reporting
from tune.sweep import Sweep, open_sweep

with needing("tune"):
    from ray import tune

#: In Ray's checkpoint: whose it is, and up to which report it goes.
NOTE = "trial.json"


def run_trial(config: Mapping[str, Any], folder: str) -> None:
    """Trains one configuration, from where it was if it has begun before.

    Every trial has a run folder, from which it goes on like any run; what Ray Tune may not have heard of what it
    reported, it is told first. Where trials are halted or copied, Ray's checkpoint says whose state to go on from.
    """
    sweep = open_sweep(folder)
    identity = tune.get_context().get_trial_id()
    run = RunFolder(sweep.trials / identity)
    info = run.info()
    if info.get("state") == "failed":
        # The sweep was killed before it had booked this; the trial would fail again.
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
    """The trial's training: it begins, or goes on where its run folder, or the ``state``, is."""
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
    """The state that a trial goes on from, which is there as long as this; None: it begins.

    What the run folder knows of a future that was given up is deleted: checkpoints and reports.

    Args:
        sweep: the sweep.
        identity: the trial's.
        note: what Ray's checkpoint says: whose state, after how many images. None: its own last one that it reported,
            of a sweep that was stopped.
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
        state = Handed(sweep.trials / donor).take(images, Path(scratch) / "state")
        journal.keep([report for report in journal.read() if report.images_seen <= images])
        yield state


def _last_state(run: RunFolder) -> int:
    """After how many images the newest state is whose report was written down, too; 0: there is none."""
    reported = {report.images_seen for report in Journal(run.path).read()}
    return max(reported.intersection(Handed(run.path).images_seen()), default=0)


def _note() -> dict[str, Any] | None:
    """What Ray's checkpoint for this trial says."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return json.loads((Path(folder) / NOTE).read_text())


def _tell_again(identity: str, reports: Sequence[Report], note: Mapping[str, Any] | None) -> None:
    """Tells Ray Tune what came after its checkpoint; where it has none, the last report, as its schedulers know all
    others already."""
    unknown = [report for report in reports if report.images_seen > note["images_seen"]] if note else reports[-1:]
    for report in unknown:
        _tell(identity, report)


def _tell(identity: str, report: Report) -> None:
    """Hands a report to Ray Tune; returns when the trial is to go on, else ends the thread."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NOTE).write_text(json.dumps({"trial": identity, "images_seen": report.images_seen}))
        tune.report(report.result, checkpoint=tune.Checkpoint.from_directory(folder))
