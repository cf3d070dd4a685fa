"""Chooses the checkpoint from which a run resumes: the same for every rank, and deleted by no other process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from launch.checkpoints import files
from launch.runs.folder import RunFolder, slurm_attempt, this_process

#: Seconds that ranks wait for the choice of rank 0; nodes of one job may start minutes apart.
PATIENCE = 900.0


def resume_point(run: RunFolder, *, patience: float = PATIENCE) -> Path | None:
    """The checkpoint from which training resumes; None: there is none yet, and training starts from scratch.

    Under SLURM this process first becomes the run's owner: ranks of an earlier attempt may still run on a node that no
    longer answers, and save and delete checkpoints until they see the new owner. Rank 0 chooses, and writes its choice
    to run.json: the other ranks would look at another moment, and a shared file system may show them other files.

    Args:
        run: the run to resume.
        patience: seconds that the other ranks wait for the choice of rank 0.

    Raises:
        TimeoutError: rank 0 did not choose in time.
    """
    attempt = slurm_attempt()
    # With the job step, since `gesso fit --resume` may run several times in one interactive allocation.
    step = f"{attempt}.{os.environ.get('SLURM_STEP_ID', 0)}"
    if attempt and rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return _wait_for_choice(run, step, patience)
    if attempt:
        run.update(owner=this_process())
    files.recover(run.checkpoints)
    last = run.last_checkpoint
    # Not the link, which may point to another checkpoint by the time it is read.
    name = last.resolve().name if last else None
    if attempt:
        run.update(resumed={"by": step, "checkpoint": name})
    return run.checkpoints / name if name else None


def check_own(run: RunFolder, checkpoint: Path, saved: Mapping[str, Any]) -> None:
    """Checks that a checkpoint in a run's folder is the run's own; runs and checkpoints of before do not tell.

    Args:
        run: the run to resume.
        checkpoint: where the checkpoint is.
        saved: its content.

    Raises:
        ValueError: it is another run's; names both.
    """
    theirs: Mapping[str, Any] = saved.get("run") or {}
    if None not in (known := (theirs.get("identity"), run.info().get("identity"))) and known[0] != known[1]:
        raise ValueError(
            f"{checkpoint}: is of another run ({theirs.get('name')}) than {run.path}: move it away, or begin a new run "
            f"from it with `gesso fit --config RECIPE --checkpoint {checkpoint}`"
        )


def _wait_for_choice(run: RunFolder, step: str, patience: float) -> Path | None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        choice = run.info().get("resumed") or {}
        if choice.get("by") == step:
            return run.checkpoints / choice["checkpoint"] if choice["checkpoint"] else None
        time.sleep(0.1)
    raise TimeoutError(
        f"{run.path}: the first rank has not said within {patience:.0f} s from which checkpoint to go on; "
        "its log (`gesso slurm logs`) tells why"
    )
