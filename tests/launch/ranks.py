"""Starts a program as several gloo ranks on this machine, and waits for them."""

from __future__ import annotations

import json
import os
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
    """Ports that nothing listens at; held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
