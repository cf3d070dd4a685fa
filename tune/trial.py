"""One trial: a gesso training in a worker of Ray's, with a run folder like any other."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from launch.runs import RunFolder
from tune.journal import Journal, Report
from tune.ranks import environment, limit_threads, others, printing_to
from tune.reporting import STATE, Reporting
from tune.sweep import Sweep, open_sweep

#: In Ray's checkpoint: whose it is, and up to which report it goes.
NOTE = "trial.json"


def run_trial(config: Mapping[str, Any], folder: str) -> None:
    """Trains one configuration, from where it was if it has begun before.

    Every trial has a run folder, from which it goes on like any run. What it reported before Ray Tune heard of it (the
    sweep was killed in between) is told again first. In PBT and PB2, Ray's checkpoint says whose state to go on from.
    """
    sweep = open_sweep(folder)
    drawn = sweep.space.active(config)
    identity = tune.get_context().get_trial_id()
    run = RunFolder(sweep.trials / identity)
    info = run.info()
    if info.get("state") == "failed":
        # Ray starts trials again whose process was lost; one that has failed by itself would fail again.
        raise RuntimeError(str(info.get("error")))
    with tempfile.TemporaryDirectory() as scratch:
        note, state = _told(Path(scratch))
        parent = None
        if sweep.population:
            parent = _take_over(run, identity, note)
        else:
            known = note.get("images_seen", -1)
            for report in Journal(run.path).read():
                if report.images_seen > known:
                    _tell(identity, report, None)
            if info.get("state") == "finished":
                return
        reporting = Reporting(
            drawn,
            tuple(sweep.objectives),
            states=sweep.population,
            tell=partial(_tell, identity),
            parent=parent,
        )
        train(sweep, run, arguments(sweep, run, config, state), reporting)
    if reporting.stopped:
        sys.exit(0)


def arguments(sweep: Sweep, run: RunFolder, config: Mapping[str, Any], state: Path | None) -> list[str]:
    """The trial as a command of ``gesso fit``."""
    placement = sweep.placement
    shape = [
        "--trainer.devices=1",
        f"--trainer.num_nodes={placement.ranks}",
        f"--trainer.accelerator={'gpu' if placement.gpus else 'cpu'}",
    ]
    drawn = sweep.space.overrides(config)
    if run.config.is_file():
        begun = ["--resume", str(run.path), *(["--checkpoint", str(state)] if state else [])]
        return [*begun, *shape, *drawn]
    common = [f"--config={sweep.recipe}", f"--run.group={sweep.path.name}", f"--run.name={run.path.name}"]
    return [*common, *shape, *drawn]


def train(sweep: Sweep, run: RunFolder, argv: Sequence[str], reporting: Reporting) -> None:
    """Trains in this process, and in as many others as the trial has ranks."""
    with (
        printing_to(run.path / "logs" / "rank0.log"),
        others(sweep.placement, argv, run.path, states=sweep.population) as variables,
        environment(variables),
    ):
        from launch.train import main

        # SLURM's name for the node, where there is one.
        print(f"on {os.environ.get('SLURMD_NODENAME') or platform.node()}")
        limit_threads(sweep.placement.cpus)
        main("fit", list(argv), [reporting])


def _told(scratch: Path) -> tuple[dict[str, Any], Path | None]:
    """What Ray's checkpoint for this trial says, and a copy of the state in it."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return {}, None
    # A copy: whose state it is may go on, and Ray delete it, while this trial reads.
    checkpoint.to_directory(str(scratch / "checkpoint"))
    state = scratch / "checkpoint" / STATE
    return json.loads((scratch / "checkpoint" / NOTE).read_text()), state if state.is_dir() else None


def _take_over(run: RunFolder, identity: str, note: Mapping[str, Any]) -> str | None:
    """Makes the run folder agree with the state that Ray gives; whose that was, if it was another trial's."""
    if run.path.exists() and not note:
        # Killed before its first report came through: it begins again.
        shutil.rmtree(run.path)
    if not note:
        return None
    # All that matters is in Ray's checkpoint; checkpoints of a future that was given up would be in the way.
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    # Nor is what was reported in that future.
    journal = Journal(run.path)
    journal.keep([report for report in journal.read() if report.images_seen <= note["images_seen"]])
    return note["trial"] if note["trial"] != identity else None


def _tell(identity: str, report: Report, handed: Path | None) -> None:
    """Hands a report to Ray Tune, which copies; returns when the trial is to go on, else ends the thread."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = handed or Path(scratch)
        (folder / NOTE).write_text(json.dumps({"trial": identity, "images_seen": report.images_seen}))
        metrics = {**report.metrics, "kimg": report.kimg, "images_seen": report.images_seen}
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
