"""Eight trainings as a sweep, one after the other, against the same eight as `gesso fit`: start-up included, in turns.

    python -m tests.benchmarks.bench_tune

Figures go to ``results/tune.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

from launch.runs.machine import processor
from tests.benchmarks.bench_slurm import shards

RESULTS = Path(__file__).parent / "results" / "tune.json"
ROUNDS = 2
BETAS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
GESSO = (sys.executable, "-m", "gesso.cli.main")


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        root = Path(scratch)
        recipe = [
            *("--config=mnist-vae", f"--data.path={shards(root)}", "--run.kimg=8", "--evaluation.every_kimg=4"),
            *("--evaluation.metrics=[]", "--checkpoints.monitor=null", "--run.wandb=disabled"),
            *("--trainer.accelerator=cpu", "--trainer.precision=32-true"),
        ]
        space = root / "space.yaml"
        space.write_text(f"model.beta: grid({list(BETAS)})\n")
        sweep = [
            *(*GESSO, "tune", *recipe[:-2], recipe[-1], f"--space={space}", "--metric=val/reconstruction"),
            *("--num-samples=1", "--concurrent=1", f"--cpus-per-trial={cores}", f"--root={root / 'sweeps'}"),
        ]
        fits = [[*GESSO, "fit", *recipe, f"--model.beta={beta}", f"--run.root={root / 'runs'}"] for beta in BETAS]
        seconds: dict[str, list[float]] = {"gesso tune": [], "gesso fit": []}
        for _ in range(ROUNDS):
            for name, commands in (("gesso tune", [sweep]), ("gesso fit", fits)):
                seconds[name].append(took(commands))
                print(f"{name:12} {seconds[name][-1]:6.1f} s for {len(BETAS)} trainings", flush=True)
    ratio = median(seconds["gesso tune"]) / median(seconds["gesso fit"])
    print(f"a sweep takes {ratio:.2f} times as long (goal: 1.10 at most)")
    machine = {"machine": processor(), "cores": cores}
    RESULTS.write_text(json.dumps({"date": str(date.today()), **machine, "seconds": seconds, "ratio": ratio}, indent=1))


def took(commands: list[list[str]]) -> float:
    began = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
