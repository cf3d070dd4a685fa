"""Starts a program as several gloo ranks on this machine, and waits for them."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run_ranks(
    program: Path,
    out: Path,
    jobs: Sequence[dict[str, Any]],
    *,
    ranks: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs ``LOCAL_RANK=r program OUT JOB...`` on fresh processes, one thread each; ends all when one fails.

    Args:
        out: a folder for the ranks' files; their logs go there too.
        jobs: JSON objects; ``ranks`` and ``port``, another one for each job, are filled in.
        environment: variables on top.

    Raises:
        RuntimeError: a rank failed; with the ends of the ranks' logs.
    """
    arguments = [
        json.dumps({**job, "ranks": ranks, "port": port}) for job, port in zip(jobs, free_ports(len(jobs)), strict=True)
    ]
    # One thread a rank: two ranks on two cores would otherwise wait for each other's threads.
    inherited = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "DS_BUILD_OPS": "0",
    }
    logs = [out / f"rank{rank}.log" for rank in range(ranks)]
    started = []
    for rank, log in enumerate(logs):
        with log.open("w") as stream:
            started.append(
                subprocess.Popen(
                    [sys.executable, str(program), str(out), *arguments],
                    env={**inherited, **(environment or {}), "LOCAL_RANK": str(rank)},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
    while any(rank.poll() is None for rank in started):
        if any(rank.poll() for rank in started):
            for rank in started:
                rank.kill()
        time.sleep(0.1)
    if any(rank.returncode for rank in started):
        raise RuntimeError("\n".join(log.read_text()[-4000:] for log in logs))


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at, and that the system gives to no connection meanwhile (those begin at 32768)."""
    found: list[int] = []
    # Tests seed the generators of their processes, with the same seed: those would all draw the same ports.
    drawn = random.SystemRandom()
    while len(found) < count:
        port = drawn.randrange(20_000, 32_700)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found
