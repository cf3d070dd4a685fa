"""Killed without warning, at any moment, again and again: what is trained in the end is what would have been anyway."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.checkpoints import files
from launch.runs import RunFolder
from tests.launch.identity import assert_identical, training_state
from tests.launch.ranks import free_ports

PROGRAM = Path(__file__).with_name("kill_program.py")
#: Kills of each strategy's training. (30 take five minutes on two cores.)
KILLS = int(os.environ.get("GESSO_TEST_KILLS", "5"))

pytestmark = pytest.mark.slow


class Rank:
    """A process that trains as one rank, in forks that may be killed."""

    def __init__(self, rank: int, log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1"}
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank)],
            env={**environment, "DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0", "PL_GLOBAL_SEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        self.child = 0

    def say(self) -> str:
        assert self.process.stdout is not None
        # DeepSpeed prints to stdout while it is imported.
        return next(
            line.strip() for line in self.process.stdout if line.strip().lstrip("-").isdecimal() or "ready" in line
        )

    def start(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.child = int(self.say())

    def kill(self) -> None:
        # It may have ended by itself a moment before.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)

    def wait(self) -> int:
        return int(self.say())


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[Rank]]:
    both = [Rank(rank, tmp_path / f"rank{rank}.log") for rank in range(2)]
    for rank in both:
        assert rank.say() == "ready"
    yield both
    for rank in both:
        rank.process.kill()
        rank.process.wait()


def arguments(strategy: str, shards: Path) -> list[str]:
    return [
        *("fit", "--config=mnist-dcgan", f"--data.path={shards}", "--data.global_batch_size=16"),
        *("--model.width=8", "--model.latent_dim=8", "--run.kimg=1.6", "--run.log_every_kimg=0.2"),
        *("--run.wandb=disabled", "--trainer.accelerator=cpu", "--trainer.precision=32-true"),
        *("--trainer.devices=2", f"--trainer.strategy={strategy}", "--evaluation.metrics=[]"),
        # Most of the time goes into checkpoints: many kills meet one that is being written.
        *("--checkpoints.every_kimg=0.032", "--checkpoints.monitor=null", "--previews.every_kimg=100"),
    ]


def start(ranks: list[Rank], run: Path, argv: list[str]) -> None:
    (port,) = free_ports(1)
    for rank in ranks:
        rank.start({"argv": argv, "port": port, "run": str(run)})


def finish(ranks: list[Rank]) -> None:
    codes = [rank.wait() for rank in ranks]
    assert codes == [0, 0], "\n".join(rank.log.read_text()[-3000:] for rank in ranks)


def wait_for(moment: Any, ranks: list[Rank], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not moment() and time.monotonic() < deadline and (Path("/proc") / str(ranks[0].child)).exists():
        time.sleep(0.001)


def newest(run: RunFolder) -> Path | None:
    return run.last_checkpoint.resolve() if run.last_checkpoint else None


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_kill_minus_nine_at_random_moments(strategy: str, shards: Path, tmp_path: Path, ranks: list[Rank]) -> None:
    argv = arguments(strategy, shards)
    whole = RunFolder(tmp_path / "whole")
    start(ranks, whole.path, argv)
    finish(ranks)
    reference = training_state(whole.path)
    assert reference["gesso"]["images_seen"] == 1600

    draw = random.Random(strategy)
    killed_while_writing = kills = number = 0
    while kills < KILLS:
        run = RunFolder(tmp_path / f"killed{number}")
        began = newest(run)
        start(ranks, run.path, ["fit", f"--resume={run.path}"] if run.config.is_file() else argv)
        kind = draw.choice(("set-up", "training", "writing", "writing"))
        if kind == "set-up":
            time.sleep(draw.uniform(0, 2))
        else:
            wait_for(lambda run=run, began=began: newest(run) != began, ranks, 60)
            time.sleep(draw.uniform(0, 0.5))
            if kind == "writing":
                wait_for(lambda run=run: any(run.checkpoints.glob("*.partial")), ranks, 5)
                time.sleep(draw.uniform(0, 0.01))
        for rank in draw.sample(ranks, 2):
            rank.kill()
        codes = [rank.wait() for rank in ranks]
        if codes == [0, 0]:
            assert_identical(training_state(run.path), reference)
            number += 1
            continue
        assert -signal.SIGKILL in codes, "\n".join(rank.log.read_text()[-3000:] for rank in ranks)
        kills += 1
        killed_while_writing += any(run.checkpoints.glob("*.partial"))
        # What is left is whole: a checkpoint is complete or absent.
        for checkpoint in run.checkpoints.glob("[0-9]*[0-9]"):
            files.verify(checkpoint)
    run = RunFolder(tmp_path / f"killed{number}")
    start(ranks, run.path, ["fit", f"--resume={run.path}"] if run.config.is_file() else argv)
    finish(ranks)
    assert_identical(training_state(run.path), reference)
    assert killed_while_writing >= KILLS // 5
    print(f"{kills} kills, {killed_while_writing} of them in a checkpoint; {number} trainings ended between them")
