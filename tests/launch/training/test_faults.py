"""A rank that dies, and memory that does not suffice: an error that names it, soon, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from launch.checkpoints import layout
from launch.runs.folder import RunFolder
from launch.strategies import ddp, zero
from launch.training.hardware import OutOfMemory, is_out_of_memory, out_of_memory
from lightning_modules.gan.dcgan import DCGAN
from tests.waiting import wait_until

SMALL: dict[str, Any] = {"resolution": 32, "channels": 1, "width": 8, "latent_dim": 8}
QUIET = ("--evaluation.metrics=[]", "--checkpoints.monitor=null", "--trainer.accelerator=cpu")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_other_and_is_named(victim: int, shards: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gesso.cli.main", "fit", "--config=mnist-vae", f"--data.path={shards}"),
            *("--trainer.strategy=ddp", "--trainer.devices=2", "--run.wandb=disabled"),
            *(
                "--data.global_batch_size=16",
                "--model.autoencoder.width=8",
                "--run.kimg=1000",
                f"--run.root={tmp_path}",
            ),
            *("--run.log_every_kimg=0.1", "--checkpoints.every_kimg=0.1", *QUIET),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        run = trained(tmp_path, process)
        ranks = [process.pid, second_rank(process.pid)]
        os.kill(ranks[victim], signal.SIGKILL)
        _, errors = process.communicate(timeout=90)
        wait_until(lambda: not alive(ranks[1]), "the end of the other rank", seconds=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    name = f"rank {victim} (process {ranks[victim]})"
    assert name in errors
    if victim == 1:
        assert process.returncode == 1
        assert f"gesso: {name} was killed by SIGKILL" in errors.splitlines()
        info = run.info()
        assert (info["state"], info["error"]) == ("failed", f"RankLost: {name} was killed by SIGKILL")
        assert f"gesso fit --resume {run.path}" in errors
    assert run.last_checkpoint is not None
    layout.verify(run.last_checkpoint)


def trained(root: Path, process: subprocess.Popen[str]) -> RunFolder:
    """The run under ``root``, once it has saved a checkpoint."""

    def saved() -> RunFolder | None:
        assert process.poll() is None, f"ended without a checkpoint: {process.poll()}"
        return next((run for run in map(RunFolder, root.iterdir()) if run.last_checkpoint), None)

    run = wait_until(saved, "a checkpoint")
    assert run is not None
    return run


def second_rank(first: int) -> int:
    """The process that the first rank began; forks that load its data have its own environment."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    (child,) = (pid for pid in children if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    return int(child)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_out_of_memory_names_the_levers_in_their_order() -> None:
    ddp.register()
    zero.register()

    def message(strategy: str, **options: Any) -> str:
        trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
        error = out_of_memory(trainer, DCGAN.from_options({**SMALL, **options}), 64)
        assert isinstance(error, OutOfMemory)
        return str(error)

    everything = message("ddp")
    levers = ["micro_batches=2", "gradient_checkpointing=true", "zero2", "zero3", "zero3_offload", "global_batch_size"]
    places = [everything.index(lever) for lever in levers]
    assert places == sorted(places)
    assert everything.startswith("out of memory: rank 0 on cpu, 64 images a step")
    last = message("zero3_offload", micro_batches=64, gradient_checkpointing=True)
    assert last.partition("order: ")[2] == "a smaller --data.global_batch_size"


def test_what_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("something else"))


@pytest.mark.slow
def test_a_training_that_does_not_fit_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gesso.cli.main import main

    def greedy(self: DCGAN, batch: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(DCGAN, "step", greedy)
    argv = ["--config=mnist-dcgan", f"--data.path={shards}", f"--run.root={tmp_path}", "--run.wandb=disabled"]
    assert main(["fit", *argv, "--data.global_batch_size=16", "--model.generator.width=8", *QUIET]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gesso: out of memory: rank 0 on cpu, 16 images a step; in this order: --model.m")
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "failed"
