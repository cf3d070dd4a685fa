"""Jobs that are preempted, killed and cut off: they come back, and end with the same weights bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launch.runs.folder import RunFolder
from launch.training.signals import EXIT_REQUEUE
from slurm import queue
from slurm.attempts import attempts, submitted
from tests.launch.identity import assert_identical, training_state
from tests.launch.offline import wandb_runs
from tests.slurm.lab import CLUSTER, Lab, attempt_of, finished, job, logs, processes, wait
from tests.slurm.witness import steps

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(7200)]

#: Preemption signals in all, and trainings that they are spread over. (100 take about 45 minutes on two cores.)
SIGNALS = int(os.environ.get("GESSO_TEST_SIGNALS", "2"))
TRAININGS = min(5, -(-SIGNALS // 4))
#: Ranks on each of the two nodes. Few signals are sent to half as many: most of the time they are being started.
PER_NODE = 2 if SIGNALS > 2 else 1
SHAPE = ("--nodes=2", f"--tasks-per-node={PER_NODE}", "--cpus-per-task=1")


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
    back = wait(lambda: finished(run) or attempt_of(run) > attempt, 120, "coming back", of=run)
    assert back
    return 1


def check(run: RunFolder, whole: RunFolder, reference: object) -> None:
    assert_identical(training_state(run.path), reference)
    for rank in range(2 * PER_NODE):
        assert strip(run.path, rank) == strip(whole.path, rank), f"rank {rank} of {run.path}\n{logs(run)}"
    assert run.info()["restarts"] == len(attempts(run)) - 1
    assert run.info()["state"] == "finished"


def strip(run: Path, rank: int) -> list[object]:
    return [(step["images_seen"], step["samples"]) for step in steps(run, rank)]


# ---- what happens to jobs -------------------------------------------------------------------------------------------

PAIR = ("--nodes=1", "--tasks-per-node=2", "--cpus-per-task=1")


def started(lab: Lab, *more: str, options: tuple[str, ...] = ()) -> RunFolder:
    """A training of two ranks with W&B, that has done some steps."""
    training = lab.training("--run.wandb=offline", "--checkpoints.every_kimg=0.16", *more)
    run = lab.submit(training, *PAIR, *options)
    wait(lambda: len(steps(run.path, 0)) > 20 and run.last_checkpoint, 120, "first steps", of=run)
    return run


def came_back(run: RunFolder, *, images: int, restarts: int) -> None:
    """Waits for the end, and checks that it was one training: one W&B run, one restart each time, no step left out."""
    wait(lambda: finished(run), 300, "the end", of=run)
    assert run.info()["state"] == "finished"
    assert run.info()["restarts"] == restarts
    for rank in range(2):
        reached = 0
        for attempt in range(restarts + 1):
            seen = [step["images_seen"] for step in steps(run.path, rank) if step["attempt"] == attempt]
            assert seen == list(range(seen[0], seen[-1] + 16, 16))
            assert seen[0] <= reached + 16
            reached = seen[-1]
        assert reached == images
    recorded = wandb_runs(run.path)
    assert len(recorded) == restarts + 1
    assert {identity for identity, _ in recorded} == {run.info()["wandb_id"]}


def trains(run: RunFolder, attempt: int) -> None:
    """Waits until an attempt has done some steps."""
    wait(lambda: sum(step["attempt"] == attempt for step in steps(run.path, 0)) > 20, 120, "it to train", of=run)


def preempt(run: RunFolder, tmp_path: Path) -> None:
    """Sends an urgent job to the run's node."""
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep 3\n")
    queue.submit(script, "--partition=urgent", f"--nodelist={job(run).nodes}", "--exclusive", "--output=/dev/null")


def test_preempted_by_an_urgent_job_then_killed_with_minus_nine(lab: Lab, tmp_path: Path) -> None:
    run = started(lab, "--run.kimg=9.6")
    preempt(run, tmp_path)
    trains(run, attempt=1)
    os.kill(processes(run)[1], signal.SIGKILL)
    came_back(run, images=9600, restarts=2)
    # SLURM itself has requeued the first attempt.
    assert [(attempt.restart, attempt.failed) for attempt in attempts(run)] == [(1, True), (2, False)]


def test_preempted_with_grace_then_cut_off_by_the_time_limit(lab: Lab, tmp_path: Path) -> None:
    run = started(lab, "--run.kimg=16", options=("--partition=grace", "--time=10", "--signal-lead=20"))
    preempt(run, tmp_path)
    trains(run, attempt=1)
    # SLURM counts in minutes, and may warn up to one early.
    queue.slurm("scontrol", "update", f"JobId={submitted(run)[-1]}", "TimeLimit=1")
    wait(lambda: attempt_of(run) == 2, 120, "the time limit", of=run)
    queue.slurm("scontrol", "update", f"JobId={submitted(run)[-1]}", "TimeLimit=10")
    came_back(run, images=16_000, restarts=2)
    assert [attempt.exit_code for attempt in attempts(run)] == [EXIT_REQUEUE, EXIT_REQUEUE, 0]
    # Each saved at once, and lost nothing: every step was done once.
    assert [step["images_seen"] for step in steps(run.path, 0)] == list(range(16, 16_016, 16))


def test_a_node_that_dies(lab: Lab) -> None:
    run = started(lab, "--run.kimg=16")
    node = job(run).nodes
    ghosts = processes(run)
    state = Path(os.environ["SLURM_CONF"]).parents[1]
    try:
        os.kill(int((state / "run" / f"{node}.pid").read_text()), signal.SIGKILL)
        # Its ranks live on, and do not know that the job is going to run elsewhere. They rest until it does, or they
        # would come to the end of the training before SLURM had noticed.
        for ghost in ghosts:
            os.kill(ghost, signal.SIGSTOP)
        wait(lambda: attempt_of(run) == 1 and job(run).state == "RUNNING", 90, "another node", of=run)
        for ghost in ghosts:
            os.kill(ghost, signal.SIGCONT)
        assert job(run).nodes != node
        came_back(run, images=16_000, restarts=1)
        wait(lambda: not any(Path(f"/proc/{ghost}").exists() for ghost in ghosts), 60, "the old ranks to end")
        assert "has taken this run over; this one ends" in logs(run)
    finally:
        # Starts the node again.
        subprocess.run([CLUSTER, "up"], check=True, stdout=subprocess.DEVNULL)
