"""From sbatch to the first training step: gesso's job against a hand-written one of the same training, in turns.

    python -m tests.benchmarks.bench_slurm

Runs on a SLURM of its own (tests/slurm): four gloo ranks on two virtual nodes. The checks before queueing do not count.
Figures go to ``results/slurm.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

from gesso.cli.main import main as gesso
from launch.runs.folder import RunFolder
from launch.runs.machine import processor
from slurm import queue
from slurm.submit import executable
from tests.slurm.lab import CLUSTER, Lab, brought_up, finished, possible, wait
from tests.slurm.witness import steps

RESULTS = Path(__file__).parent / "results" / "slurm.json"
ROUNDS = 4
SHAPE = ("--nodes=2", "--tasks-per-node=2", "--cpus-per-task=1")


def main() -> None:
    if not possible():
        print("a SLURM of one's own needs root and Debian's packages")
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, brought_up() as environment:
        os.environ.update({**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CLUSTER.parents[2])})
        lab = Lab(shards=shards(Path(scratch)), root=Path(scratch) / "runs")
        seconds: dict[str, list[float]] = {"gesso slurm submit": [], "hand-written": []}
        for number in range(ROUNDS):
            for name, start in (("gesso slurm submit", submitted), ("hand-written", by_hand)):
                # The first round finds the disk's cache cold.
                took = start(lab, number)
                if number:
                    seconds[name].append(took)
                print(f"{name:20} {took:6.2f} s{'' if number else '  (not counted)'}", flush=True)
    ours, theirs = (median(values) for values in seconds.values())
    apart = median(a - b for a, b in zip(*seconds.values(), strict=True))
    print(f"from sbatch to the first step: {ours:.2f} s, by hand {theirs:.2f} s; {apart:+.2f} s in a round (goal: +2)")
    result = {"date": str(date.today()), "machine": processor(), "seconds": seconds}
    differences = {"difference_of_medians": round(ours - theirs, 2), "median_of_differences": round(apart, 2)}
    RESULTS.write_text(json.dumps({**result, **differences}, indent=1) + "\n")


def shards(scratch: Path) -> Path:
    out = scratch / "mnist"
    with contextlib.redirect_stdout(io.StringIO()):
        assert gesso(["shards", "build", "mnist", str(out), "--size", "32"]) == 0
    return out


def submitted(lab: Lab, number: int) -> float:
    """Seconds from our sbatch to the first step."""
    started = []
    submit = queue.submit

    def timed(*arguments: object, **options: object) -> str:
        started.append(time.time())
        return submit(*arguments, **options)  # type: ignore[arg-type]

    queue.submit = timed  # type: ignore[assignment]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run = lab.submit(lab.training("--run.kimg=0.32"), *SHAPE)
    finally:
        queue.submit = submit
    wait(lambda: finished(run), 120, "our job")
    return float(steps(run.path, 0)[0]["time"]) - started[0]


def by_hand(lab: Lab, number: int) -> float:
    """Seconds from a plain sbatch to the first step."""
    run = RunFolder(lab.root / f"by-hand-{number}")
    run.path.mkdir(parents=True)
    training = [*lab.training("--run.kimg=0.32"), "--trainer.devices=2", "--trainer.num_nodes=2"]
    script = run.path / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        "#SBATCH --nodes=2 --ntasks-per-node=2 --cpus-per-task=1\n"
        f"#SBATCH --output={run.path}/job.log\n"
        f"export GESSO_RUN={run.path}\n"
        f"srun {executable()} {' '.join(training)} --trainer.accelerator=cpu\n"
    )
    started = time.time()
    job = queue.submit(script)
    wait(lambda: not queue.jobs([job])[job].alive, 120, f"the hand-written job\n{run.path}/job.log")
    return float(steps(run.path, 0)[0]["time"]) - started


if __name__ == "__main__":
    main()
