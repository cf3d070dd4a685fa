"""Requests a second of `gesso serve` against a plain FastAPI server of the same model.

    python -m tests.benchmarks.bench_serve                              # mnist-dcgan's network; some minutes
    python -m tests.benchmarks.bench_serve --requests 100 --rounds 1    # to see that it runs

Both servers run all the time and are asked in turns (A B A B), sixteen requests at a time; a ratio is the median over
the rounds of two rates in the same round. Every answer must be the picture of its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from launch.checkpoints.export import export
from launch.runs.machine import processor
from lightning_modules.catalogue import family
from tests.ports import free_ports

RESULTS = Path(__file__).parent / "results" / "serve.json"
AT_A_TIME = 16
#: As in mnist-dcgan.
NETWORK = {
    "resolution": 32,
    "channels": 1,
    "latent_dim": 64,
    "num_classes": 10,
    "generator": {"width": 32},
    "discriminator": {"width": 32},
}
#: At least so many times as many requests a second as the plain server.
GOAL = 1.5


def network(folder: Path) -> Path:
    """A file of random weights of mnist-dcgan's network."""
    torch.manual_seed(0)
    module = family("DCGAN").from_options(NETWORK)
    out = folder / "model.safetensors"
    export(module.eval(), out, origin={"images_seen": 0, "average": True, "path": "nowhere"})
    return out


@contextlib.contextmanager
def started(command: list[str], port: int) -> Iterator[httpx.Client]:
    """Context manager: a client of a server that is up."""
    process = subprocess.Popen([sys.executable, "-m", *command])
    limits = httpx.Limits(max_connections=AT_A_TIME, max_keepalive_connections=AT_A_TIME)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/health").status_code == 200:
                        break
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} has ended with {process.returncode}")
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait()


def asked(client: httpx.Client, count: int, first: int) -> tuple[float, list[bytes]]:
    """Requests a second, and the answers of seeds ``first`` to ``first + count - 1``."""

    def ask(seed: int) -> bytes:
        answer = client.post("/models/model/generate", json={"seed": seed})
        assert answer.status_code == 200, answer.text
        return answer.content

    start = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        answers = list(pool.map(ask, range(first, first + count)))
    return count / (time.perf_counter() - start), answers


def difference(ours: list[bytes], theirs: list[bytes]) -> int:
    """The largest difference of two pixels."""
    pairs = zip(ours, theirs, strict=True)
    return max(int(np.abs(_pixels(one) - _pixels(other)).max()) for one, other in pairs)


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data))).astype(int)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="write the figures")
    arguments = parser.parse_args()
    threads = str(torch.get_num_threads())
    ours, theirs = free_ports(2)
    rates: dict[str, list[float]] = {"gesso serve": [], "plain FastAPI": []}
    with tempfile.TemporaryDirectory() as folder:
        file = str(network(Path(folder)))
        gesso = started(["gesso", "serve", file, "--port", str(ours)], ours)
        plain = started(["tests.benchmarks.serve_rival", file, str(theirs), threads], theirs)
        with gesso as one, plain as other:
            asked(one, 32, 0), asked(other, 32, 0)
            for number in range(arguments.rounds):
                rate, mine = asked(one, arguments.requests, number * arguments.requests)
                rates["gesso serve"].append(rate)
                rate, rivals = asked(other, arguments.requests, number * arguments.requests)
                rates["plain FastAPI"].append(rate)
                assert difference(mine, rivals) <= 1, "an answer is another picture"
    ratio = median(a / b for a, b in zip(rates["gesso serve"], rates["plain FastAPI"], strict=True))
    table = Table("server", "requests/s", title=f"{AT_A_TIME} at a time, {arguments.requests} in a round")
    for name, found in rates.items():
        table.add_row(name, f"{median(found):.1f}")
    Console().print(table, f"ratio {ratio:.2f}, goal {GOAL}")
    if arguments.keep:
        figures = {"processor": processor(), "threads": int(threads), "rates": rates, "ratio": ratio, "goal": GOAL}
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    return int(ratio < GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
