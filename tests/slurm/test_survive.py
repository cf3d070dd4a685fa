"""Jobs that are preempted, killed and cut off: they come back, and end with the same weights bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launch.runs import RunFolder
from slurm import queue
from slurm.attempts import INTERRUPTED, attempts, submitted
from tests.launch.identity import assert_identical, training_state
from tests.launch.offline import wandb_runs
from tests.slurm.lab import CLUSTER, Lab, attempt_of, finished, job, logs, processes, wait
from tests.slurm.witness import steps

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(7200)]

#: Preemption signals in all, and trainings that they are spread over. (100 take about 45 minutes on two cores.)
SIGNALS = int(os.environ.get("GESSO_TEST_SIGNALS", "4"))
TRAININGS = min(5, -(-SIGNALS // 4))
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


# ---- what happens to jobs -------------------------------------------------------------------------------------------

PAIR = ("--nodes=1", "--tasks-per-node=2", "--cpus-per-task=1")


def started(lab: Lab, *more: str, options: tuple[str, ...] = ()) -> RunFolder:
    """A training of two ranks with W&B, that has done some steps."""
    training = lab.training("--run.kimg=6.4", "--run.wandb=offline", "--checkpoints.every_kimg=0.16", *more)
    run = lab.submit(training, *PAIR, *options)
    wait(lambda: len(steps(run.path, 0)) > 20 and run.last_checkpoint, 120, f"first steps\n{logs(run)}")
    return run


def came_back(run: RunFolder, *, images: int = 6400) -> None:
    """Waits for the end, and checks that it was one training: one W&B run, no step lost, one restart."""
    wait(lambda: finished(run), 240, f"the end\n{logs(run)}")
    assert run.info()["state"] == "finished"
    assert run.info()["restarts"] == 1
    for rank in range(2):
        ours = [step["images_seen"] for step in steps(run.path, rank) if step["attempt"] == 1]
        before = [step["images_seen"] for step in steps(run.path, rank) if step["attempt"] == 0]
        assert ours == list(range(ours[0], images + 16, 16))
        assert ours[0] <= before[-1] + 16
    recorded = wandb_runs(run.path)
    assert len(recorded) == 2
    assert {identity for identity, _ in recorded} == {run.info()["wandb_id"]}


def test_preempted_by_an_urgent_job(lab: Lab, tmp_path: Path) -> None:
    run = started(lab)
    node = job(run).nodes
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep 3\n")
    queue.submit(script, "--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null")
    came_back(run)


def test_preempted_with_grace(lab: Lab, tmp_path: Path) -> None:
    run = started(lab, options=("--partition=grace",))
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep 3\n")
    queue.submit(script, "--partition=urgent", f"--nodelist={job(run).nodes}", "--exclusive", "--output=/dev/null")
    came_back(run)
    # It saved at once, and lost nothing: the other attempt goes on with the next step.
    first, second = ([s for s in steps(run.path, 0) if s["attempt"] == n] for n in (0, 1))
    assert second[0]["images_seen"] == first[-1]["images_seen"] + 16


def test_the_time_limit(lab: Lab) -> None:
    # SLURM rounds a limit up to minutes, and may warn up to a minute early.
    run = started(lab, "--run.kimg=16", options=("--time=1", "--signal-lead=25"))
    first = wait(lambda: attempts(run), 90, f"the warning\n{logs(run)}")
    assert (first[0].exit_code in INTERRUPTED, first[0].decision) == (True, "requeue")
    queue.slurm("scontrol", "update", f"JobId={submitted(run)[-1]}", "TimeLimit=10")
    wait(lambda: finished(run), 240, f"the end\n{logs(run)}")
    seen = [step["images_seen"] for step in steps(run.path, 0)]
    assert seen == list(range(16, 16016, 16))
    assert {identity for identity, _ in wandb_runs(run.path)} == {run.info()["wandb_id"]}


def test_a_rank_killed_with_minus_nine(lab: Lab) -> None:
    run = started(lab)
    os.kill(processes(run)[1], signal.SIGKILL)
    came_back(run)
    assert [attempt.failed for attempt in attempts(run)] == [True, False]


def test_a_node_that_dies(lab: Lab) -> None:
    run = started(lab, "--run.kimg=16")
    node = job(run).nodes
    ghosts = processes(run)
    state = Path(os.environ["SLURM_CONF"]).parents[1]
    try:
        # Its ranks live on, and do not know that the job is going to run elsewhere.
        os.kill(int((state / "run" / f"{node}.pid").read_text()), signal.SIGKILL)
        wait(lambda: attempt_of(run) == 1 and job(run).state == "RUNNING", 90, f"another node\n{logs(run)}")
        assert job(run).nodes != node
        came_back(run, images=16_000)
        assert not [ghost for ghost in ghosts if Path(f"/proc/{ghost}").exists()]
        assert "has taken this run over; this one ends" in logs(run)
    finally:
        # Starts the node again.
        subprocess.run([CLUSTER, "up"], check=True, stdout=subprocess.DEVNULL)
