"""The loader: gesso against torchvision, webdataset, litdata and mosaicml-streaming, as their documentation has them.

    python -m tests.benchmarks.bench_loader

256 px JPEGs of real pictures become random resized, randomly mirrored crops in float32 batches of 64. Each loader reads
them as its documentation wants them; the pixels are the same to the bit. gesso's have restart markers, and without
them, where they lie in webdataset's tars, it is a contestant too. The contestants, each in a process of its own and
with its data in memory, take turns of a second. Each turn of another
comes right after one of gesso's, since a machine's speed changes from one second to the next; a ratio is the median
over such pairs. Beside the loaders there are litdata with gesso's decoder, and a bare loop that only decodes, crops and
resizes images that lie in memory, in threads and in processes. At last, one epoch of 100,000 small images with the
resident memory over its length.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from launch.runs.machine import processor
from tests.benchmarks.loader_data import in_memory, prepare
from tests.benchmarks.loader_rivals import BATCH, RIVALS

RESULTS = Path(__file__).parent / "results" / "loader.json"
ROOT = Path(__file__).parents[2]
MOSAIC = ROOT / ".venv-mosaic"
SIZES = (224, 64)
WORKERS = (0, 1, 2)
BARE = ("bare-threads", "bare-processes")
CONTESTANTS = ("gesso-threads", "gesso-indexed", *RIVALS, "litdata-fast", *BARE)
GOALS = {224: 1.8, 64: 2.5}
GOAL_FAST, GOAL_BARE = 1.0, 0.8

#: Images per second of gesso and of another one, in turns that followed each other.
Pair = tuple[float, float]


class Contestant:
    """A process of ``loader_rivals``, and the orders to it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._start()

    def _start(self) -> None:
        name, folder = self.name, self.folder
        python = MOSAIC / "bin" / "python" if name == "mosaicml-streaming" else sys.executable
        # One thread for torch's own operators: equal workers are to have equal cores.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [str(python), "-m", "tests.benchmarks.loader_rivals", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def rate(self, size: int, workers: int, seconds: float) -> float:
        """Images per second in one turn. A rival that dies of a race of its own gets another process, twice."""
        for _ in range(2):
            rate = self._turn(size, workers, seconds)
            if rate is not None:
                return rate
            print(f"{self.name} died and is started again", flush=True)
            self.process.wait()
            self._start()
        rate = self._turn(size, workers, seconds)
        if rate is None:
            raise RuntimeError(f"{self.name} failed:\n{self.log.read_text()[-2000:]}")
        return rate

    def _turn(self, size: int, workers: int, seconds: float) -> float | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"size": size, "workers": workers, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            return None
        result = json.loads(answer)
        return result["images"] / result["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def mosaic_environment(folder: Path) -> bool:
    """Makes mosaicml-streaming's own environment (it wants older packages) and its data; False where it cannot be had.

    It sees this environment's packages behind its own, so that torch is not there twice.
    """
    if not (MOSAIC / ".ready").exists():
        print(f"making {MOSAIC} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(MOSAIC)], check=True)
        python = MOSAIC / "bin" / "python"
        script = "import sysconfig; print(sysconfig.get_path('purelib'))"
        own = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
        (Path(own.stdout.strip()) / "gesso-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*install, "mosaicml-streaming"], check=False).returncode:
            print("mosaicml-streaming cannot be installed; going on without it")
            return False
        (MOSAIC / ".ready").touch()
    if not (folder / "mosaic" / "index.json").exists():
        print(f"making {folder / 'mosaic'} ...", flush=True)
        script = (
            "import sys; from pathlib import Path; from tests.benchmarks.loader_data import write_mosaic; "
            "write_mosaic(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        arguments = [str(folder / "mosaic"), str(folder / "jpeg")]
        subprocess.run([MOSAIC / "bin" / "python", "-c", script, *arguments], check=True, cwd=ROOT)
    return True


def contest(
    gesso: Contestant, others: list[Contestant], size: int, workers: int, rounds: int, seconds: float
) -> dict[str, list[Pair]]:
    """The pairs of each of the others; the first, in which workers start, does not count."""
    pairs: dict[str, list[Pair]] = {other.name: [] for other in others}
    for number in range(rounds + 1):
        for other in others:
            length = seconds if number else 0.2
            pair = gesso.rate(size, workers, length), other.rate(size, workers, length)
            if number:
                pairs[other.name].append(pair)
    return pairs


def summary(pairs: dict[str, list[Pair]]) -> dict[str, Any]:
    """Medians, and gesso's advantage over each of the others in the same pairs."""
    return {
        "images_per_second": {
            "gesso": median(ours for turns in pairs.values() for ours, _ in turns),
            **{name: median(theirs for _, theirs in turns) for name, turns in pairs.items()},
        },
        "gesso_over": {name: median(ours / theirs for ours, theirs in turns) for name, turns in pairs.items()},
        "pairs": pairs,
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    """Prints the table: images per second, and in brackets gesso's rate over that."""
    names = list(next(iter(results.values()))["images_per_second"])
    table = Table(
        title=f"Images per second (gesso's rate over it), batch {BATCH}, medians",
        caption=(
            f"goals: {GOALS[224]} and {GOALS[64]} over each documented loader at 224 and 64 px, "
            f"{GOAL_FAST} over litdata-fast, {GOAL_BARE} of the faster bare loop"
        ),
    )
    for column in ("pixels", "workers", *names):
        table.add_column(column, justify="right")
    for cell, result in results.items():
        rates, ratios = result["images_per_second"], result["gesso_over"]
        figures = [f"{rates[n]:,.0f}" + (f"\n({ratios[n]:.2f})" if n in ratios else "") for n in names]
        table.add_row(*cell.split("/"), *figures)
    Console(width=170).print(table)


def verdict(results: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Which goals hold, at equal workers; against the bare loop with two workers on two cores."""
    held = {}
    for cell, result in results.items():
        size, workers = map(int, cell.split("/"))
        for name, ratio in result["gesso_over"].items():
            if name in RIVALS:
                held[f"{cell} over {name}"] = ratio >= GOALS[size]
            elif name == "litdata-fast":
                held[f"{cell} over {name}"] = ratio >= GOAL_FAST
        bare = [ratio for name, ratio in result["gesso_over"].items() if name in BARE]
        if workers == max(WORKERS) and bare:
            held[f"{cell} of the bare loop"] = min(bare) >= GOAL_BARE
    return held


def memory(folder: Path, samples: int) -> list[float]:
    """Resident megabytes of a process of its own over one epoch of the small images."""
    script = (
        "import json, sys; from pathlib import Path; from tests.benchmarks.loader_rivals import memory; "
        "print(json.dumps(memory(Path(sys.argv[1]), int(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", script, str(folder / f"small-{samples}"), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prepares, contests, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description="gesso's loader against others")
    parser.add_argument("--images", type=int, default=20_000, help="256 px JPEGs")
    parser.add_argument("--epoch", type=int, default=100_000, help="small images of the memory's epoch")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of each contestant in each cell of the table")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--contestants", nargs="+", default=CONTESTANTS, choices=CONTESTANTS, help="beside gesso")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    folder = prepare(options.images, options.epoch)
    names = [name for name in options.contestants if name != "mosaicml-streaming" or mosaic_environment(folder)]
    began = time.perf_counter()
    results: dict[str, dict[str, Any]] = {}
    with in_memory(folder) as data, ExitStack() as opened:
        gesso, *others = [opened.enter_context(closing(Contestant(name, data))) for name in ("gesso", *names)]
        for size in SIZES:
            for workers in options.workers:
                print(f"{size} px, {workers} workers ... ({time.perf_counter() - began:.0f} s)", flush=True)
                pairs = contest(gesso, others, size, workers, options.rounds, options.seconds)
                results[f"{size}/{workers}"] = summary(pairs)
    show(results)
    held = verdict(results)
    print("\n".join(f"{'held  ' if ok else 'MISSED'} {goal}" for goal, ok in held.items()))
    resident = memory(folder, options.epoch)
    print(
        f"resident memory over {options.epoch:,} images: {resident[0]:.0f} MB at the start, "
        f"{resident[len(resident) // 2]:.0f} in the middle, {resident[-1]:.0f} at the end"
    )
    machine = {"processor": processor(), "cores": psutil.cpu_count(), "python": platform.python_version()}
    figures = {"machine": machine, "images": options.images, "batch": BATCH, "results": results, "goals": held,
               "resident_megabytes": resident}  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
