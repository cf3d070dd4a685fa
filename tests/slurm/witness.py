"""A callback that writes down which samples each rank was trained on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning as L

from launch.callbacks.lookup import run_folder


class Witness(L.Callback):
    """One line for each step that came to its end, in RUN/witness/rankR.jsonl."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        file = run_folder(trainer).path / "witness" / f"rank{trainer.global_rank}.jsonl"
        file.parent.mkdir(exist_ok=True)
        line = {
            "attempt": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            "images_seen": pl_module.images_seen,
            "samples": batch["index"].tolist(),
            "time": time.time(),
        }
        with file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def steps(run: Path, rank: int) -> list[dict[str, Any]]:
    """What a rank was trained on, step by step."""
    file = run / "witness" / f"rank{rank}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
