"""W&B as a guest: training goes on without it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from launch.runs.folder import RunFolder
from launch.runs.tracking import finish_wandb, wandb_logger
from tests.launch.offline import wandb_runs
from tests.waiting import wait_until


def core_processes() -> set[int]:
    """Numbers of W&B's own processes that this one has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"wandb-core" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_dead_wandb_ends_nothing_and_has_lost_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    logger = wandb_logger(run, "gesso", "offline", {})
    assert logger is not None
    before = core_processes()
    for value in range(5):
        logger.log_metrics({"loss": value})
    wait_until(lambda: [rows for _, rows in wandb_runs(tmp_path)] == [5], "W&B's writing", seconds=60)
    # As SLURM does with every process of a job.
    for process in before | core_processes():
        os.kill(process, signal.SIGTERM)
    wait_until(lambda: not core_processes(), "the end of W&B's processes")
    for value in range(5):
        logger.log_metrics({"loss": value})
        time.sleep(0.1)
    finish_wandb(failed=False)
    assert capsys.readouterr().err.count("W&B no longer answers") == 2
    assert wandb_runs(tmp_path) == [(logger.facts["wandb_id"], 5)]
