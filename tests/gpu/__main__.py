"""What is to be seen on GPUs, in one table: `python -m tests.gpu`, on a machine with PyTorch and nothing else.

Needs no network: see docs/gpu.md. Without CUDA, what needs none runs in a tiny version, and the rest is skipped by
name. The table is kept as tests/benchmarks/results/gpu-DEVICE.json, anew after each part.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gesso.common.cores import granted_cores
from launch.runs.machine import processor
from tests.gpu import rows as table
from tests.gpu.catalogue import PARTS
from tests.gpu.parts import Part, Place, attempt, own_command, run_all
from tests.gpu.rows import Row

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SECONDS = 480


def main() -> int:
    """Runs the parts, prints the table; 1 where something failed."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; default: all, in that order")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together (default %(default)s)")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--devices", type=int, help="GPUs, or processes of one thread (default: 2 where there are)")
    parser.add_argument("--out", type=Path, help="a folder for the parts' files and logs (default: one that goes)")
    parser.add_argument("--output", type=Path, help="where the table is kept (default: results/gpu-DEVICE.json)")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)  # of run_all: a part in this process
    options = parser.parse_args()
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    devices = options.devices or (min(2, torch.cuda.device_count()) if options.accelerator == "gpu" else 1)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(options.accelerator, devices, (options.out or Path(folder)).resolve())
        place.out.mkdir(parents=True, exist_ok=True)
        chosen = [part for part in PARTS if part.name in (options.parts or names)]
        if options.one:
            run_one(next(part for part in PARTS if part.name == options.one), place)
            return 0
        facts = machine(place)
        output = options.output or RESULTS / f"gpu-{slug(str(facts['device']) if place.cuda else 'cpu')}.json"
        return run_and_show(chosen, place, options.seconds, facts, output)


def run_one(part: Part, place: Place) -> None:
    """A part in this process; its rows go to its file as they come."""
    for row in attempt(part, place):
        table.append(place.out / f"{part.name}.jsonl", row)


def run_and_show(parts: list[Part], place: Place, limit: float, facts: dict[str, Any], output: Path) -> int:
    """All parts, each in a process of its own; the table is kept after each."""
    rows: list[Row] = []
    seconds: dict[str, float] = {}

    def heard(part: Part, found: list[Row], took: float) -> None:
        rows.extend(found)
        seconds[part.name] = round(took, 1)
        failed = sum(row.state == "failed" for row in found)
        print(f"{part.name}: {took:.0f} s, {len(found)} rows" + (f", {failed} failed" if failed else ""), flush=True)
        table.keep(output, facts, rows, seconds)

    run_all(parts, place, limit, heard, lambda part: own_command(part, place))
    took = f"{sum(seconds.values()):.0f} s"
    table.show(rows, f"{facts['device']}, torch {facts['torch']}, {facts['date']}, {took}")
    print(f"kept: {output}")
    return int(any(row.state == "failed" for row in rows))


def machine(place: Place) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if place.cuda else processor(),
        "devices": place.devices,
        "processor": processor(),
        "cores": granted_cores(),
        "python": sys.version.split()[0],
        "cuda": torch.version.cuda if place.cuda else None,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **{package: _version(package) for package in ("torch", "torchvision", "lightning", "deepspeed")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def slug(name: str) -> str:
    """A device's name as part of a file's: ``NVIDIA H200`` -> ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    raise SystemExit(main())
