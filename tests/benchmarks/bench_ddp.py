"""A step of several ranks: gesso's ddp against torch's, and against gradients that travel after the backward pass.

    python -m tests.benchmarks.bench_ddp

A VAE of 20 M parameters under Lightning's own ``DDPStrategy``; a GAN in a loop by hand, with a torch
``DistributedDataParallel`` for each network. ``before`` is gesso's ddp as it was: it sends gradients when the backward
pass has ended, and all buffers, and asks in each step whether a rank was told to stop. The contestants take turns in
one set of processes, one thread each, over gloo. With a delay each message takes longer, as over a network; torch's
own messages cannot be delayed so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from launch.runs.machine import processor
from tests.launch.strategies.ranks import run_ranks

RESULTS = Path(__file__).parent / "results" / "ddp.json"
WARM_UP = 3
VAE, GAN = {"family": "vae", "width": 144, "batch": 4}, {"family": "gan", "width": 96, "batch": 4}
#: Jobs, and the ratios that are wanted: at most of torch's step, at least of before's.
JOBS: list[dict[str, Any]] = [
    {**family, "ranks": ranks, "delay": delay}
    for family in (VAE, GAN)
    for ranks, delay in ((2, 0.0), (4, 0.0), (2, 2.0))
]
GOALS = {"torch": 1.02, "before": 1.3}


def contest(job: dict[str, Any], rounds: int, steps: int) -> dict[str, list[float]]:
    """Median seconds of a step in each round, by contestant."""
    contestants = ["gesso", "before", *([] if job["delay"] else ["torch"])]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [{**job, "contestants": contestants, "rounds": rounds, "steps": steps + WARM_UP}]
        run_ranks("tests.benchmarks.ddp_rank", Path(folder), jobs, ranks=job["ranks"])
        seconds = json.loads(Path(folder, "seconds.json").read_text())
    return {name: [median(turn[WARM_UP:]) for turn in turns] for name, turns in seconds.items()}


def main() -> None:
    """Runs the contests, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description="gesso's ddp against torch's, on ranks of this machine")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--steps", type=int, default=12, help="steps of a turn")
    parser.add_argument("--only", choices=("vae", "gan"), help="one family alone")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    table = Table(
        title="a step of several ranks over gloo, one thread each",
        caption=f"goals: gesso / torch <= {GOALS['torch']}; with a delay, before / gesso >= {GOALS['before']}",
    )
    for column in ("family", "ranks", "delay ms", "gesso ms", "gesso / torch", "before / gesso"):
        table.add_column(column, justify="right")
    results = []
    for job in JOBS:
        if options.only not in (None, job["family"]):
            continue
        seconds = contest(job, options.rounds, options.steps)
        ratios = {
            other: median(a / b for a, b in zip(seconds[other], seconds["gesso"], strict=True))
            for other in seconds
            if other != "gesso"
        }
        results.append({**job, "seconds": seconds, "over_gesso": ratios})
        table.add_row(
            job["family"],
            str(job["ranks"]),
            f"{job['delay']:g}",
            f"{1000 * median(seconds['gesso']):.0f}",
            f"{1 / ratios['torch']:.3f}" if "torch" in ratios else "",
            f"{ratios['before']:.2f}",
        )
    Console().print(table)
    machine = {"processor": processor(), "torch": torch.__version__}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
