"""ZeRO and gradient checkpointing: what they save, and what they cost.

    python -m tests.benchmarks.bench_zero [shares] [checkpointing] [overhead]

- ``shares``: bytes of optimizer states, gradients and weights that a rank holds under each stage, on one rank and two;
- ``checkpointing``: peak memory (of a fresh process each) and seconds a step with and without, at growing resolution;
- ``overhead``: seconds a step of ZeRO 1 and 2 over DDP's.

Times are taken in turns (A B A B) in the same processes; a ratio is the median over the rounds.

On a machine with GPUs all of it runs there (NCCL, bf16-mixed, as many ranks as there are GPUs, at most two) and also
tells images/s; else on CPU ranks over gloo, in fp32, with one thread each. Figures go to ``results/zero.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from launch.planning import footprint
from launch.planning import memory as planning
from launch.runs.machine import processor
from tests.launch.planning.memory_program import make, measure_ranks

RESULTS = Path(__file__).parent / "results" / "zero.json"
MIB = 2**20
#: What each stage promises to cut into as many parts as there are ranks. ``stepped``: the gradients an optimizer gets.
SHARDS = {
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "stepped"),
    "zero3": ("optimizer", "stepped", "weights"),
}
TOLERANCE = 0.1
COLUMNS = ("weights", "masters", "optimizer", "gradients", "stepped")
#: Steps that are not timed: allocators, caches and DeepSpeed's traces fill up.
WARM_UP = 2
RESOLUTIONS = (32, 64, 128, 256)

CUDA = torch.cuda.is_available()
#: Of the networks at growing resolution: on a CPU narrow ones, whose activations outweigh their weights.
WIDTH = 64 if CUDA else 16
RANKS = (1, 2) if not CUDA else tuple(range(1, min(torch.cuda.device_count(), 2) + 1))
WHERE = {"accelerator": "gpu", "precision": "bf16-mixed"} if CUDA else {}


def run(jobs: list[dict[str, Any]], ranks: int, *, frugal: bool = False) -> dict[str, list[dict[str, Any]]]:
    """The jobs' measurements, by name; of fresh processes, one a rank."""
    with tempfile.TemporaryDirectory() as folder:
        return measure_ranks(Path(folder), [{**job, **WHERE} for job in jobs], ranks=ranks, frugal=frugal)


def in_turns(
    jobs: dict[str, dict[str, Any]], rounds: int, ranks: int
) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """Trains the jobs one after the other, ``rounds`` times (A B A B), in one set of processes.

    Returns:
        For each job the median seconds of a step in each round, and its first peak of GPU memory (None on a CPU).
    """
    turns = [{**job, "name": f"{name}-{turn}"} for turn in range(rounds) for name, job in jobs.items()]
    # Ranks wait for each other: the first one's clock is as good as any.
    measured = {name: of_ranks[0] for name, of_ranks in run(turns, ranks).items()}
    seconds = {
        name: [median(measured[f"{name}-{turn}"]["seconds"][WARM_UP:]) for turn in range(rounds)] for name in jobs
    }
    return seconds, {name: measured[f"{name}-0"]["cuda_peak"] for name in jobs}


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of one's seconds over the other's in the same round."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


# ---- shares ---------------------------------------------------------------------------------------------------------


def shares() -> list[dict[str, Any]]:
    """Bytes a rank holds, by ranks and strategy, and whether each stage keeps its promise."""
    model = {"resolution": 64, "width": 64}
    rows = []
    for ranks in RANKS:
        jobs = [
            {"name": name, "strategy": name, "model": model, "batch": 4, "steps": 2, "measure": True}
            for name in ("ddp", *SHARDS)
        ]
        held = {name: most(measured) for name, measured in run(jobs, ranks).items()}
        for name, figures in held.items():
            parts = {what: held["ddp"][what] / figures[what] for what in SHARDS.get(name, ())}
            holds = all(abs(part / ranks - 1) < TOLERANCE for part in parts.values())
            rows.append({"ranks": ranks, "strategy": name, **figures, "cut_into": parts, "holds": holds})
    return rows


def most(measured: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes of all networks together, on the rank that holds most."""
    return {
        what: max(sum(network[what] for network in rank["networks"].values()) for rank in measured) for what in COLUMNS
    }


def show_shares(rows: list[dict[str, Any]]) -> None:
    table = Table(
        title="MiB that one rank holds, DCGAN 64x64",
        caption="gradients: after a backward (DeepSpeed keeps whole what a cut goes through); stepped: what optimizers "
        f"get; verdict: what the stage shards is 1/ranks of ddp's within {TOLERANCE:.0%}",
    )
    for column in ("ranks", "strategy", *COLUMNS, "verdict"):
        table.add_column(column, justify="right")
    for row in rows:
        parts = ", ".join(f"{what} 1/{part:.2f}" for what, part in row["cut_into"].items())
        verdict = f"{'yes' if row['holds'] else 'NO'}: {parts}" if parts else ""
        table.add_row(str(row["ranks"]), row["strategy"], *(f"{row[c] / MIB:.1f}" for c in COLUMNS), verdict)
    Console(width=130).print(table)


# ---- gradient checkpointing -----------------------------------------------------------------------------------------


def checkpointing(batch: int, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Peak memory over what the process had before training, and seconds a step, by resolution."""
    rows = []
    for resolution in RESOLUTIONS:
        model = {"resolution": resolution, "width": WIDTH}
        job = {"name": "one", "strategy": "ddp", "batch": batch, "steps": steps + WARM_UP}
        jobs = {name: {**job, "model": {**model, "gradient_checkpointing": name == "on"}} for name in ("off", "on")}
        seconds, peaks = in_turns(jobs, rounds, 1)
        row: dict[str, Any] = {"resolution": resolution, "width": WIDTH, "batch": batch}
        for name, job in jobs.items():
            row[name] = {
                "peak_bytes": peaks[name] or grown({**job, "steps": 2}),
                "planned_bytes": planned(job, batch),
                "seconds_per_step": median(seconds[name]),
                "images_per_second": batch / median(seconds[name]),
            }
        row["memory_saved"] = 1 - row["on"]["peak_bytes"] / row["off"]["peak_bytes"]
        row["slowdown"] = ratio(seconds["on"], seconds["off"]) - 1
        rows.append(row)
    return rows


def grown(job: dict[str, Any]) -> int:
    """By how many bytes a fresh process grew at most while it trained."""
    (measured,) = run([job], 1, frugal=True)["one"]
    return measured["resident_peak"] - measured["resident_before"]


def planned(job: dict[str, Any], batch: int) -> int:
    """What `gesso plan` says of the same training on one rank."""
    module = make(job)
    (row,) = planning.rows(footprint.networks(module), [planning.STRATEGIES[0]], ranks=1)
    return row.device.total + max(footprint.activations(module, batch, autocast=CUDA).values())


def show_checkpointing(rows: list[dict[str, Any]]) -> None:
    what = "allocated on the GPU" if CUDA else "the process grew"
    table = Table(title=f"Gradient checkpointing, DCGAN of width {WIDTH}, batch {rows[0]['batch']}: peak MiB ({what})")
    for column in (
        "side",
        "without",
        "planned",
        "with",
        "planned",
        "saved",
        "s/step",
        "with",
        "images/s",
        "with",
        "slower",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        off, on = row["off"], row["on"]
        table.add_row(
            str(row["resolution"]),
            *(f"{each[key] / MIB:.0f}" for each in (off, on) for key in ("peak_bytes", "planned_bytes")),
            f"{row['memory_saved']:.0%}",
            *(f"{each['seconds_per_step']:.3f}" for each in (off, on)),
            *(f"{each['images_per_second']:.1f}" for each in (off, on)),
            f"{row['slowdown']:.0%}",
        )
    Console(width=130).print(table)


# ---- overhead -------------------------------------------------------------------------------------------------------


def overhead(rounds: int, steps: int) -> dict[str, Any]:
    """Seconds a step of DDP, ZeRO 1 and ZeRO 2."""
    names, batch, ranks = ("ddp", "zero1", "zero2"), 64 if CUDA else 16, max(RANKS)
    job = {"model": {"resolution": 64, "width": 64}, "batch": batch, "steps": steps + WARM_UP}
    seconds, _ = in_turns({name: {**job, "strategy": name} for name in names}, rounds, ranks)
    return {
        "ranks": ranks,
        "batch_per_rank": batch,
        "seconds_per_step": {name: median(times) for name, times in seconds.items()},
        "images_per_second": {name: ranks * batch / median(times) for name, times in seconds.items()},
        "overhead_over_ddp": {name: ratio(seconds[name], seconds["ddp"]) - 1 for name in names[1:]},
        "rounds": seconds,
    }


def show_overhead(result: dict[str, Any]) -> None:
    table = Table(title=f"A step on {result['ranks']} ranks")
    for column in ("strategy", "s/step", "images/s", "over ddp"):
        table.add_column(column, justify="right")
    for name, seconds in result["seconds_per_step"].items():
        more = result["overhead_over_ddp"].get(name)
        table.add_row(
            name,
            f"{seconds:.3f}",
            f"{result['images_per_second'][name]:.1f}",
            "" if more is None else f"{more:+.1%}",
        )
    Console(width=130).print(table)


# ---- results --------------------------------------------------------------------------------------------------------


def keep(name: str, result: Any) -> None:
    """Puts ``result`` into the results file, under the kind of device and ``name``, beside what is there."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kind = "cuda" if CUDA else "cpu"
    machine = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if CUDA else f"{processor()}, {os.cpu_count()} cores",
        "precision": WHERE.get("precision", "32-true"),
        **{package: version(package) for package in ("torch", "lightning", "deepspeed")},
    }
    known.setdefault(kind, {})[name] = {**machine, "result": result}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="shares, checkpointing, overhead (default: all)")
    parser.add_argument("--batch", type=int, default=64 if CUDA else 32, help="of checkpointing (default %(default)s)")
    parser.add_argument("--steps", type=int, default=20 if CUDA else 3, help="timed steps (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each rival (default %(default)s)")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    parts = options.parts or ["shares", "checkpointing", "overhead"]
    if "shares" in parts:
        keep("shares", rows := shares())
        show_shares(rows)
    if "checkpointing" in parts:
        keep("checkpointing", rows := checkpointing(options.batch, options.rounds, options.steps))
        show_checkpointing(rows)
    if "overhead" in parts:
        keep("overhead", result := overhead(options.rounds, options.steps))
        show_overhead(result)
    print(f"figures: {RESULTS}")


if __name__ == "__main__":
    main()
