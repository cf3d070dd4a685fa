"""Where a run goes on: at one checkpoint, the same for every rank, that nobody else deletes meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from launch.checkpoints import files
from launch.runs.folder import RunFolder, slurm_attempt, this_process

#: How long ranks wait for the first one's word; nodes of one job may start minutes apart.
PATIENCE = 900.0


def resume_point(run: RunFolder, *, patience: float = PATIENCE) -> Path | None:
    """The checkpoint that training goes on from; None when there is none yet, and it begins again.

    Under SLURM the run is taken over before the choice: ranks of the attempt before may live on where a node no longer
    answers, and go on saving and deleting until they see that. The first rank chooses, and tells the others through
    run.json, since they would look at another moment, maybe through another node's eyes.

    Args:
        run: the run to resume.
        patience: seconds that the other ranks wait for the first one's word.

    Raises:
        TimeoutError: it did not come.
    """
    attempt = slurm_attempt()
    # Of a step, since `gesso fit --resume` may be typed again and again in one interactive allocation.
    word = f"{attempt}.{os.environ.get('SLURM_STEP_ID', 0)}"
    if attempt and rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return _told(run, word, patience)
    if attempt:
        run.update(owner=this_process())
    files.recover(run.checkpoints)
    last = run.last_checkpoint
    # Not the link, which may point elsewhere when the checkpoint is read.
    name = last.resolve().name if last else None
    if attempt:
        run.update(resumed={"by": word, "checkpoint": name})
    return run.checkpoints / name if name else None


def _told(run: RunFolder, word: str, patience: float) -> Path | None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        told = run.info().get("resumed") or {}
        if told.get("by") == word:
            return run.checkpoints / told["checkpoint"] if told["checkpoint"] else None
        time.sleep(0.1)
    raise TimeoutError(
        f"{run.path}: the first rank has not said within {patience:.0f} s from which checkpoint to go on; "
        "its log (`gesso slurm logs`) tells why"
    )
