"""Starts a program as several gloo ranks on this machine, and waits for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.forks import Fork
from tests.ports import free_ports


def run_ranks(
    module: str, out: Path, jobs: Sequence[dict[str, Any]], *, ranks: int, fresh: Mapping[str, str] | None = None
) -> None:
    """Runs ``LOCAL_RANK=r python -m module OUT JOB...`` as so many ranks, one thread each; ends all when one fails.

    Args:
        out: a folder for the ranks' files; their logs go there too.
        jobs: JSON objects; ``ranks`` and ``port``, another one for each job, are filled in.
        fresh: processes of which nothing is imported yet, which begin with these variables; None: forks.

    Raises:
        RuntimeError: a rank failed; with the ends of the ranks' logs.
    """
    ports = free_ports(len(jobs))
    filled = [json.dumps({**job, "ranks": ranks, "port": port}) for job, port in zip(jobs, ports, strict=True)]
    begin = Fork if fresh is None else fresh_process
    logs = [out / f"rank{rank}.log" for rank in range(ranks)]
    started = [
        begin(module, [str(out), *filled], log, {"LOCAL_RANK": str(rank), **(fresh or {})})
        for rank, log in enumerate(logs)
    ]
    while any(rank.poll() is None for rank in started):
        if any(rank.poll() for rank in started):
            for rank in started:
                rank.kill()
        time.sleep(0.1)
    if any(rank.returncode for rank in started):
        raise RuntimeError("\n".join(log.read_text()[-4000:] for log in logs))


def fresh_process(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A process of which nothing is imported yet."""
    # Packages may lie where only this process's own path leads.
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    # One thread: two ranks on two cores would otherwise wait for each other's threads.
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_BUILD_OPS": "0"}
    with log.open("w") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **variables, **environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
