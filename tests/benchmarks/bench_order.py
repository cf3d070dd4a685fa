"""A set of 100 million images in 10,000 shards: opening it, positions to samples, and shards that each node fetches.

    python -m tests.benchmarks.bench_order [opening] [positions] [nodes]

- ``opening``: CPU seconds and memory of a fresh process from the manifest to the first batch's reader;
- ``positions``: microseconds a sample of ``Order.locate``, over 1,000 batches of one rank of many;
- ``nodes``: ``Order`` is run for all ranks over a whole epoch, and the shards are counted that each node of 8 ranks
  reads in it, and how many in one hundredth of it (those in use at a time), with the number of segments that a set of
  this size gets, and with 64.

The set has no tars, and an index that takes no room on the disk. Figures go to ``results/order.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from datamodules.manifest import Manifest
from datamodules.order import Order, SampleOrder
from launch.runs.machine import processor
from tests.datamodules.shardset import large_set

RESULTS = Path(__file__).parent / "results" / "order.json"
SHARDS, SAMPLES_PER_SHARD = 10_000, 10_000
RANKS, RANKS_PER_NODE = (8, 64, 512, 2048), 8
#: Parts of an epoch; what a node reads in one of them is in use at a time.
PARTS = 100
BATCHES, IMAGES_PER_RANK = 1000, 128
SEGMENTS = (64, 1024)


# ---- opening --------------------------------------------------------------------------------------------------------

#: Memory before is that of Python with all modules.
_OPENING = """
import json, sys, time
from datamodules.shards import ShardData
from datamodules.streaming.reader import ShardReader
from tests.memory import resident
before, start = resident("VmRSS"), time.process_time()
data = ShardData(sys.argv[1], global_batch_size=256, workers=0)
found = data.unlabelled, data.num_classes, data.size
data.train_dataloader(), data.state_dict(), ShardReader(data.manifest, "train")
print(json.dumps({"cpu_seconds": time.process_time() - start, "bytes": resident("VmHWM") - before}))
"""


def opening(folder: Path) -> dict[str, float]:
    """CPU seconds and bytes that a fresh process takes to open the set."""
    command = [sys.executable, "-c", _OPENING, str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"opening: {found['cpu_seconds']:.2f} s of CPU time, {found['bytes'] / 1e6:.0f} MB")
    return found


# ---- positions ------------------------------------------------------------------------------------------------------


def positions(manifest: Manifest) -> list[dict[str, float]]:
    """Microseconds of CPU time a sample, for a rank of so many, by the number of segments."""
    rows = []
    table = Table(title=f"Order.locate, {BATCHES} batches of {IMAGES_PER_RANK} on a rank: CPU time a sample")
    for column in ("segments", "ranks", "µs"):
        table.add_column(column, justify="right")
    for segments in SEGMENTS:
        for ranks in (1, *RANKS):
            order = order_of(manifest, segments)
            batch = ranks * IMAGES_PER_RANK
            start = time.process_time()
            for number in range(BATCHES):
                order.locate(np.arange(number * batch, (number + 1) * batch, ranks))
            micros = (time.process_time() - start) / (BATCHES * IMAGES_PER_RANK) * 1e6
            rows.append({"segments": segments, "ranks": ranks, "microseconds": micros})
            table.add_row(str(segments), f"{ranks:,}", f"{micros:.1f}")
    Console().print(table)
    return rows


def order_of(manifest: Manifest, segments: int) -> Order:
    return Order([shard.samples for shard in manifest.split("train").shards], 0, segments)


# ---- shards of nodes ------------------------------------------------------------------------------------------------


class Reading:
    """What the nodes of a training read in an epoch.

    Args:
        ranks: of the training.
        per_node: ranks of a node.
        shards: of the set.
    """

    def __init__(self, ranks: int, per_node: int, shards: int) -> None:
        self.ranks = ranks
        self._per_node = per_node
        self._ever = np.zeros((ranks // per_node, shards), bool)
        #: Most shards that each node reads in a part of the epoch, int [nodes].
        self.in_use = np.zeros(ranks // per_node, np.int64)

    def read(self, first: int, shards: np.ndarray) -> None:
        """Notes the shards of a part of the epoch, that of the positions from ``first`` on."""
        nodes = np.arange(first, first + len(shards)) % self.ranks // self._per_node
        now = np.zeros(self._ever.shape, bool)
        now[nodes, shards] = True
        self._ever |= now
        self.in_use = np.maximum(self.in_use, np.count_nonzero(now, axis=1))

    @property
    def fetched(self) -> np.ndarray:
        """Number of shards that each node reads, int [nodes]."""
        return np.count_nonzero(self._ever, axis=1)


def simulate(
    order: SampleOrder, sizes: Sequence[int], rank_counts: Sequence[int], per_node: int, progress: Callable[[int], None]
) -> list[Reading]:
    """Runs an epoch of the order, and deals its samples to the nodes of trainings with so many ranks."""
    ends = np.cumsum(sizes)
    found = [Reading(ranks, per_node, len(sizes)) for ranks in rank_counts]
    edges = np.linspace(0, order.samples, PARTS + 1).astype(np.int64).tolist()
    for part, (first, last) in enumerate(pairwise(edges)):
        shards = np.searchsorted(ends, order.locate(np.arange(first, last)), side="right")
        for reading in found:
            reading.read(first, shards)
        progress(part)
    return found


def nodes(manifest: Manifest) -> list[dict[str, float]]:
    """Shards that nodes fetch and have in use, by segments and ranks."""
    sizes = [shard.samples for shard in manifest.split("train").shards]
    table = Table(
        title=f"{len(sizes):,} shards, {sum(sizes):,} images, nodes of {RANKS_PER_NODE} ranks, one epoch",
        caption="mean over the nodes (most); fair: shards over nodes",
    )
    for column in ("segments", "ranks", "fair", "fetched by a node", "in use at a time"):
        table.add_column(column, justify="right")
    rows = []
    for segments in SEGMENTS:
        show = partial(_show, f"{segments} segments")
        for reading in simulate(order_of(manifest, segments), sizes, RANKS, RANKS_PER_NODE, show):
            fair = len(sizes) * RANKS_PER_NODE / reading.ranks
            fetched, in_use = reading.fetched, reading.in_use
            row = {"segments": segments, "ranks": reading.ranks, "fair": fair}
            for name, numbers in (("fetched", fetched), ("in_use", in_use)):
                row |= {f"{name}_mean": float(numbers.mean()), f"{name}_most": int(numbers.max())}
            rows.append(row)
            told = (f"{numbers.mean():,.0f} ({numbers.max():,})" for numbers in (fetched, in_use))
            table.add_row(f"{segments:,}", f"{reading.ranks:,}", f"{fair:,.0f}", *told)
    Console().print(table)
    return rows


def _show(what: str, part: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {part + 1} of {PARTS}", end="" if part + 1 < PARTS else "\n", file=sys.stderr)


# ---- results --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="opening, positions, nodes (default: all)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    machine = {"date": date.today().isoformat(), "processor": processor(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        manifest = large_set(Path(folder), shards=SHARDS, samples_per_shard=SAMPLES_PER_SHARD)
        measure: dict[str, Callable[[], Any]] = {
            "opening": lambda: opening(manifest.root),
            "positions": lambda: positions(manifest),
            "nodes": lambda: nodes(manifest),
        }
        for part in options.parts or measure:
            known[part] = {**machine, "numpy": np.__version__, "result": measure[part]()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(known, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
