"""A finished run for tests of its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from launch.checkpoints.layout import write
from launch.inference.pictures import save_picture

Row = tuple[int, str, float]


def write_metrics(run: Path, rows: list[Row]) -> None:
    with (run / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["images_seen", "seconds", "name", "value"])
        writer.writerows([images, "1795244400.125", name, repr(value)] for images, name, value in rows)


def finished_run(run: Path) -> Path:
    """A finished run with every part that a report can show."""
    write(run / "checkpoints" / "000000200000", {})
    info: dict[str, Any] = {
        "name": "digits",
        "family": "DCGAN",
        "command": "gesso fit --config mnist-dcgan --run.kimg 200",
        "created": "2026-11-21T08:40:12+01:00",
        "wandb_id": "k3j9x2ab",
        "versions": {"torch": "2.14.1", "lightning": "2.6.6"},
        "git": {"commit": "7694ac6f3e", "dirty": True},
        "state": "finished",
        "kimg": 200.0,
        "seconds": 184.3,
        "images_per_second": 1173.4,
        "restarts": 2,
        "device": "CPU",
        "world_size": 1,
        "error": None,
        "data": [
            {
                "name": "mnist",
                "images": 60_000,
                "fingerprint": "0123456789abcdef0123",
                "size": 32,
                "channels": 1,
                "classes": 10,
                "path": "shards/mnist",
            }
        ],
        "global_batch_size": 32,
        "seed": 7,
        "parameters": {"generator": 2_000_000, "discriminator": 1_000_000},
        "compared_with": [{"name": "mnist", "split": "train", "images": 500, "size": 32}],
        "evaluation_seconds": 71.6,
        "host": "node7",
        "processor": "Some CPU, family 6, model 1",
        "cores": 2,
        "threads": 1,
        "gpu": None,
    }
    (run / "run.json").write_text(json.dumps(info))
    (run / "config.yaml").write_text("model:\n  init_args:\n    resolution: 32\n")
    fids = {40: 219.0, 80: 98.25, 120: 39.5, 160: 41.0, 200: 41.2}
    rows: list[Row] = []
    for kimg in range(5, 201, 5):
        rows.append((kimg * 1000, "loss/generator/loss", 1 + kimg / 100))
        rows.append((kimg * 1000, "loss/discriminator/loss", 1 - kimg / 250))
        if kimg in fids:
            rows += [(kimg * 1000, "fid/mobilenet_v2", fids[kimg]), (kimg * 1000, "is/mobilenet_v2", kimg / 50)]
            rows += [(kimg * 1000, "kid/mobilenet_v2", 0.01), (kimg * 1000, "kid_std/mobilenet_v2", 0.0015)]
            rows.append((kimg * 1000, "evaluation/samples", 1000))
    write_metrics(run, rows)
    for kimg in (40, 80, 120, 160, 200):
        save_picture(np.full((64, 96), kimg, np.uint8), run / "samples" / f"{kimg:09d}000.png")
        save_picture(np.full((32, 96, 3), kimg, np.uint8), run / "samples" / f"interpolation-{kimg:09d}000.png")
    return run
