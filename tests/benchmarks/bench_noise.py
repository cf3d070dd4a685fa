"""A rank's noise: the same cost at any world size, beside ``torch.randn`` and beside drawing the global batch's."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from launch.runs.machine import processor
from lightning_modules.core.draws import NoiseRows

RESULTS = Path(__file__).parent / "results" / "noise.json"
COUNT, SHAPE = 8, (3, 256, 256)
OLD_RANKS = 8
#: Unequal by no more than this is "the same" on a machine that is not still.
GOAL = 1.1


def counted(ranks: int) -> Tensor:
    """The last rank's rows of a global batch."""
    rows = NoiseRows(0, 0, 0, 1, rank=ranks - 1, ranks=ranks)
    return rows.normal(COUNT, SHAPE, torch.device("cpu"))


def drawn(ranks: int) -> Tensor:
    """The same rows taken from the noise of the whole global batch."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(COUNT * ranks, *SHAPE, generator=generator)[ranks - 1 :: ranks].contiguous()


CONTESTANTS: dict[str, Callable[[], Tensor]] = {
    "counted, world size 1": lambda: counted(1),
    "counted, world size 512": lambda: counted(512),
    "torch.randn, own rows": lambda: torch.randn(COUNT, *SHAPE),
    f"torch.randn, global batch of {OLD_RANKS} ranks": lambda: drawn(OLD_RANKS),
}


def contest(rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant's draws, in turns that go to and fro, without the first."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for turn in range(rounds + 1):
        # Who follows the global batch's draw finds a cold cache.
        for name, draw in list(CONTESTANTS.items())[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            draw()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


def main() -> None:
    """Runs the contest, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description="A rank's draw of [8, 3, 256, 256] normal numbers")
    parser.add_argument("--rounds", type=int, default=60, help="draws of each contestant")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    seconds = contest(options.rounds)
    medians = {name: median(times) for name, times in seconds.items()}
    one, many, plain, _ = CONTESTANTS
    growth = median(b / a for a, b in zip(seconds[one], seconds[many], strict=True))
    over_randn = median(a / b for a, b in zip(seconds[one], seconds[plain], strict=True))
    table = Table(
        title=f"noise [{COUNT}, {', '.join(map(str, SHAPE))}]: milliseconds, medians",
        caption=f"world size 512 / 1: {growth:.2f} (goal < {GOAL}); counted / torch.randn: {over_randn:.2f}",
    )
    table.add_column("how")
    table.add_column("ms", justify="right")
    for name, value in medians.items():
        table.add_row(name, f"{1000 * value:.1f}")
    Console().print(table)
    machine = {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    results = {"seconds": medians, "world_size_512_over_1": growth, "over_randn": over_randn, "rounds": seconds}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "shape": [COUNT, *SHAPE], **results}, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
