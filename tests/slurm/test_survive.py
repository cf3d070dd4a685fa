"""Jobs that are preempted, killed and cut off: they come back, and end with the same weights bit for bit."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from launch.runs import RunFolder
from slurm import queue
from slurm.attempts import attempts, submitted
from tests.launch.identity import assert_identical, training_state
from tests.slurm.lab import Lab, attempt_of, finished, job, logs, wait
from tests.slurm.witness import steps

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(7200)]

#: Preemption signals in all, and trainings that they are spread over. (100 take about 45 minutes on two cores.)
SIGNALS = int(os.environ.get("GESSO_TEST_SIGNALS", "4"))
TRAININGS = min(5, SIGNALS)
SHAPE = ("--nodes=2", "--tasks-per-node=2", "--cpus-per-task=1")
RANKS = 4


def test_signals_at_random_moments(lab: Lab) -> None:
    training = lab.training("--evaluation.metrics=[fid]", "--evaluation.num_samples=64", "--evaluation.every_kimg=0.8")
    whole = lab.submit(training, *SHAPE)
    wait(lambda: finished(whole), 300, "an undisturbed training")
    reference = training_state(whole.path)
    draw = random.Random(0)
    sent = 0
    moments: dict[str, int] = {}
    for number in range(TRAININGS):
        share = SIGNALS * (number + 1) // TRAININGS
        while sent < share:
            run = lab.submit(training, *SHAPE)
            while not finished(run):
                if sent < share and job(run).state == "RUNNING":
                    sent += disturb(run, draw, moments)
                time.sleep(0.2)
            check(run, whole, reference)
    print(f"{sent} signals at {moments}: 0 hangs, 0 samples lost or repeated, weights bit for bit")


def disturb(run: RunFolder, draw: random.Random, moments: dict[str, int]) -> int:
    """Sends one signal at a random moment of the attempt that runs; 0 if that had ended before."""
    attempt, number = attempt_of(run), submitted(run)[-1]
    kind = draw.choice(("set-up", "training", "training"))
    if kind == "training":
        began = len(steps(run.path, 0))
        while len(steps(run.path, 0)) == began and job(run).state == "RUNNING":
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 3))
    else:
        time.sleep(draw.uniform(0, 15))
    if job(run).state != "RUNNING" or attempt_of(run) != attempt:
        return 0
    trained = any(step["attempt"] == attempt for step in steps(run.path, 0))
    moment = "training" if trained else "set-up"
    queue.slurm("scancel", f"--signal={draw.choice(('USR1', 'TERM'))}", number)
    moments[moment] = moments.get(moment, 0) + 1
    back = wait(lambda: finished(run) or attempt_of(run) > attempt, 120, f"coming back\n{logs(run)}")
    assert back
    return 1


def check(run: RunFolder, whole: RunFolder, reference: object) -> None:
    assert_identical(training_state(run.path), reference)
    for rank in range(RANKS):
        assert strip(run.path, rank) == strip(whole.path, rank), f"rank {rank} of {run.path}\n{logs(run)}"
    assert run.info()["restarts"] == len(attempts(run)) - 1
    assert run.info()["state"] == "finished"


def strip(run: Path, rank: int) -> list[object]:
    return [(step["images_seen"], step["samples"]) for step in steps(run, rank)]
