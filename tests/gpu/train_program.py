"""What each rank of `training.py` runs: jobs of `rank_program`, of which one that fails is told and left behind.

A job writes into the folder ``into``, and when it has ended <name>.<rank>.json there: ``{"error": "" or its last line,
"losses": each step's, of rank 0}``. Its checkpoint goes unless it says ``keep``: of many jobs they would fill a disk.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import shutil
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from launch.strategies import ddp, zero
from tests.gpu.parts import last_line
from tests.launch.strategies.rank_program import run

#: Of all jobs together; what then hangs tells where.
HANG_SECONDS = 240


def main() -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    ddp.register()
    zero.register()
    for text in sys.argv[2:]:
        job = json.loads(text)
        os.environ["MASTER_PORT"] = str(job["port"])
        carry_out(job, Path(job["into"]))


def carry_out(job: dict[str, Any], out: Path) -> None:
    """Trains one job and tells how it ended. Where others wait for this rank, or the GPU has failed, it ends here."""
    error: str = ""
    losses: list[dict[str, float]] = []
    rank = os.environ["LOCAL_RANK"]
    try:
        run(job, out)
        if rank == "0":
            losses = torch.load(out / f"{job['name']}.pt", weights_only=True)["losses"]
            clean_up(job, out)
    except Exception as failure:
        traceback.print_exc()
        error = last_line(failure)
    answer = out / f"{job['name']}.{rank}.json"
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps({"error": error, "losses": losses}))
    partial.rename(answer)
    if error:
        if job["ranks"] > 1:
            sys.exit(1)
        if job.get("accelerator") == "gpu":
            # After a fault of the GPU nothing works in this process any more.
            torch.cuda.synchronize()
        if dist.is_initialized():
            dist.destroy_process_group()
        gc.collect()


def clean_up(job: dict[str, Any], out: Path) -> None:
    """Removes what the job has saved, except what another is to go on from."""
    for suffix in (".pt", ".images.pt"):
        (out / f"{job['name']}{suffix}").unlink()
    if not job.get("keep"):
        shutil.rmtree(out / job["name"])


if __name__ == "__main__":
    main()
