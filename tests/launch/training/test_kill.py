"""Killed without warning, at any moment, again and again: what is trained in the end is what would have been anyway."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launch.checkpoints import files
from launch.runs.folder import RunFolder
from tests.forks import Fork
from tests.launch.identity import assert_identical, curve, training_state
from tests.ports import free_ports

#: Kills of each strategy's training. (30 take five minutes on two cores.)
KILLS = int(os.environ.get("GESSO_TEST_KILLS", "5"))

pytestmark = pytest.mark.slow


def arguments(strategy: str, shards: Path) -> list[str]:
    return [
        *("fit", "--config=mnist-dcgan", f"--data.path={shards}", "--data.global_batch_size=16"),
        *(
            "--model.generator.width=8",
            "--model.discriminator.width=8",
            "--model.latent_dim=8",
            "--run.kimg=1.6",
            "--run.log_every_kimg=0.2",
        ),
        *("--run.wandb=disabled", "--trainer.accelerator=cpu", "--trainer.precision=32-true"),
        *("--trainer.devices=2", f"--trainer.strategy={strategy}", "--evaluation.metrics=[]"),
        # Most of the time goes into checkpoints: many kills meet one that is being written.
        *("--checkpoints.every_kimg=0.032", "--checkpoints.monitor=null", "--previews.every_kimg=100"),
    ]


def start(run: RunFolder, argv: list[str]) -> list[Fork]:
    """Begins a training, or goes on with it, as two ranks, whose logs go beside the run's folder."""
    (port,) = free_ports(1)
    variables = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GESSO_RUN": str(run.path)}
    if run.config.is_file():
        argv = ["fit", f"--resume={run.path}"]
    return [
        Fork("gesso.cli.main", argv, log(run, rank), {**variables, "LOCAL_RANK": str(rank), "PL_GLOBAL_SEED": "0"})
        for rank in range(2)
    ]


def log(run: RunFolder, rank: int) -> Path:
    return run.path.with_name(f"{run.path.name}.rank{rank}.log")


def said(run: RunFolder) -> str:
    return "\n".join(log(run, rank).read_text()[-3000:] for rank in range(2))


def finish(run: RunFolder, ranks: list[Fork]) -> None:
    assert [rank.wait() for rank in ranks] == [0, 0], said(run)


def wait_for(moment: Any, ranks: list[Fork], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not moment() and time.monotonic() < deadline and ranks[0].poll() is None:
        time.sleep(0.001)


def newest(run: RunFolder) -> Path | None:
    return run.last_checkpoint.resolve() if run.last_checkpoint else None


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_kill_minus_nine_at_random_moments(strategy: str, shards: Path, tmp_path: Path) -> None:
    argv = arguments(strategy, shards)
    whole = RunFolder(tmp_path / "whole")
    finish(whole, start(whole, argv))
    reference = training_state(whole.path)
    assert reference["gesso"]["images_seen"] == 1600

    draw = random.Random(strategy)
    killed_while_writing = kills = number = 0
    while kills < KILLS:
        run = RunFolder(tmp_path / f"killed{number}")
        began = newest(run)
        ranks = start(run, argv)
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
            assert curve(run.path) == curve(whole.path)
            number += 1
            continue
        assert -signal.SIGKILL in codes, said(run)
        kills += 1
        killed_while_writing += any(run.checkpoints.glob("*.partial"))
        # What is left is whole: a checkpoint is complete or absent.
        for checkpoint in run.checkpoints.glob("[0-9]*[0-9]"):
            files.verify(checkpoint)
    run = RunFolder(tmp_path / f"killed{number}")
    finish(run, start(run, argv))
    assert_identical(training_state(run.path), reference)
    assert curve(run.path) == curve(whole.path)
    assert killed_while_writing >= KILLS // 5
    print(f"{kills} kills, {killed_while_writing} of them in a checkpoint; {number} trainings ended between them")
