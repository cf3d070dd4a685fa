"""A sweep inside of one SLURM job: Ray on every node, the sweep on the first.

``ray symmetric-run`` does the same, but tells nodes apart by their addresses, and so cannot serve where two of them
share a machine. Here each task of the job's one step knows its part by its number.
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

from launch.training.signals import COME_AGAIN
from slurm.submit import executable

#: In a sweep's ``slurm`` folder: asks the job's script to queue it again.
AGAIN = "again"
#: The secret of a sweep's Ray, in its folder.
TOKEN = "ray.token"
#: Seconds that Ray's head, and then the other nodes, may take to come.
PATIENCE = 300.0


def serve(sweep: Path) -> int:
    """What each node's task does: the first one runs the sweep, the others lend it what they have.

    Returns:
        The exit code; ``COME_AGAIN`` when the sweep was interrupted, and can go on.
    """
    # Before Ray is imported: who shares the machine, or the network, must not speak to this Ray.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = (sweep / TOKEN).read_text()
    address = f"{socket.gethostbyname(os.environ['MASTER_ADDR'])}:{os.environ['MASTER_PORT']}"
    if int(os.environ["SLURM_PROCID"]) > 0:
        return _lend(address)
    return _lead(sweep, address)


def _lead(path: Path, address: str) -> int:
    """Ray's head, and the sweep in a process of its own.

    SLURM's signals reach every process of a job's step, Ray's own among them: there is nobody left to stop trials with.
    What they have reported is on disk, and a sweep goes on from there as if it had been killed. But a process that
    waits for an answer of a Ray that is gone hears of a signal a minute later; this one waits for signals alone.
    """
    from tune.sweep import open_sweep  # which imports Ray

    begun: list[subprocess.Popen] = []

    def leave(number: int, frame: object) -> None:
        for process in reversed(begun):
            _kill(process)  # the sweep first: it would take the end of Ray for that of its trials
        print(f"interrupted by {signal.Signals(number).name}; the sweep goes on where it was", flush=True)
        # srun returns another code, once it has killed the other nodes' tasks.
        (path / "slurm" / AGAIN).touch()
        os._exit(COME_AGAIN)

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
        # It would try for half a minute to say goodbye to a head that is gone.
        _kill(started)
    return 0


@contextlib.contextmanager
def _ray(options: Sequence[str], *, gpus: bool) -> Iterator[subprocess.Popen]:
    """Ray on this node, with the cores that SLURM gave; it ends with this."""
    cores = os.environ.get("SLURM_CPUS_ON_NODE") or str(len(os.sched_getaffinity(0)))
    command = [
        *(str(Path(sys.prefix) / "bin" / "ray"), "start", *options, "--block", f"--num-cpus={cores}"),
        # Ports as they are free: nodes, and other people's jobs, may share a machine.
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
    """Kills a process that leads a session, and those in its group."""
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
