"""A sweep inside of one SLURM job: Ray on every node, the sweep on the first.

``ray symmetric-run`` does the same, but identifies nodes by their addresses, and so fails where two of them share a
machine. Here each task of the job identifies itself by its number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch.training.signals import EXIT_REQUEUE
from slurm.submit import executable

#: A file in a sweep's ``slurm`` folder that makes the job's script requeue the job.
AGAIN = "again"
#: File of the access token for a sweep's Ray, in the sweep's folder.
TOKEN = "ray.token"
#: Seconds to wait for Ray's head, and then for the other nodes.
PATIENCE = 300.0


def serve(sweep: Path) -> int:
    """Runs one node's task: the first node runs the sweep, the others join its Ray.

    Args:
        sweep: the sweep's folder.

    Returns:
        The exit code; ``EXIT_REQUEUE`` when the sweep was interrupted and can continue.
    """
    # Set before Ray is imported: other users of the machine or the network get no access to this Ray.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = (sweep / TOKEN).read_text()
    address = f"{socket.gethostbyname(os.environ['MASTER_ADDR'])}:{os.environ['MASTER_PORT']}"
    if int(os.environ["SLURM_PROCID"]) > 0:
        return _lend(address)
    return _lead(sweep, address)


def _lead(path: Path, address: str) -> int:
    """Starts Ray's head, and the sweep in a process of its own; returns the exit code.

    SLURM's signals reach every process of a job's step, also those of Ray, so trials cannot be stopped in order. Their
    reports are on disk, and a sweep continues from there as after a kill. A process that waits for an answer of a dead
    Ray would handle a signal only a minute later; therefore this one only waits for signals.
    """
    from tune.sweep import open_sweep  # which imports Ray

    begun: list[subprocess.Popen] = []

    def leave(number: int, frame: object) -> None:
        for process in reversed(begun):
            _kill(process)  # the sweep first: it would take the end of Ray for the end of its trials
        print(f"interrupted by {signal.Signals(number).name}; the sweep will continue where it was", flush=True)
        # srun returns another code, once it has killed the other nodes' tasks.
        (path / "slurm" / AGAIN).touch()
        os._exit(EXIT_REQUEUE)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, leave)
    host, port = address.split(":")
    head = ["--head", f"--node-ip-address={host}", f"--port={port}", "--include-dashboard=false"]
    with _ray(head, gpus=open_sweep(path).placement.gpus > 0) as started:
        begun.append(started)
        _wait_for(address)
        whole = f"--nodes={os.environ['SLURM_NNODES']}"
        sweep = [executable(), "tune", f"--resume={path}", f"--address={address}", whole]
        begun.append(subprocess.Popen(sweep, start_new_session=True))
        code = begun[-1].wait()
    return code if code >= 0 else 128 - code


def _lend(address: str) -> int:
    # Signals are for the first node, which ends this one by ending Ray.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _wait_for(address)
    with _ray([f"--address={address}"], gpus=True) as started:
        while started.poll() is None and _answers(address):
            time.sleep(1)
        # Else it would try for half a minute to reach the head, which is gone.
        _kill(started)
    return 0


@contextlib.contextmanager
def _ray(options: Sequence[str], *, gpus: bool) -> Iterator[subprocess.Popen]:
    """Context manager: runs Ray on this node with the cores that SLURM gave, and stops it at the end."""
    cores = os.environ.get("SLURM_CPUS_ON_NODE") or str(len(os.sched_getaffinity(0)))
    command = [
        *(str(Path(sys.prefix) / "bin" / "ray"), "start", *options, "--block", f"--num-cpus={cores}"),
        # Any free ports, since nodes and other users' jobs may share a machine.
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *([] if gpus else ["--num-gpus=0"]),
    ]
    started = subprocess.Popen(command, start_new_session=True)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(30)
        _kill(started)


def _kill(leader: subprocess.Popen) -> None:
    """Kills the process group of a session's leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _answers(address):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Ray has not answered at {address} within {PATIENCE:.0f} s: see the first node's log")
        time.sleep(0.5)


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False
