"""A node's part of a sweep on SLURM."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from launch.training.signals import EXIT_REQUEUE
from slurm.submit import executable
from tests.ports import free_ports
from tune.nodes import AGAIN, TOKEN
from tune.sweep import Objective, Sweep

pytestmark = pytest.mark.slow


def test_a_signal_is_heard_while_ray_is_silent(tmp_path: Path) -> None:
    Sweep(tmp_path, "gesso tune", [Objective("val/planted", "min")], num_samples=1).save()
    (tmp_path / "slurm").mkdir()
    (tmp_path / TOKEN).write_text("0" * 64)
    (port,) = free_ports(1)
    # The second node never comes, so that the sweep asks Ray for it again and again.
    task = {"SLURM_PROCID": "0", "SLURM_NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (tmp_path / "node0.log").open("w") as log:
        leader = subprocess.Popen([executable(), "tune", "--node", tmp_path], env={**os.environ, **task}, stderr=log)
    family: list[psutil.Process] = []
    try:
        while not any(asks(process, port) for process in family):
            assert leader.poll() is None, (tmp_path / "node0.log").read_text()
            time.sleep(0.2)
            family = psutil.Process(leader.pid).children(recursive=True)
        (head,) = [process for process in family if "gcs_server" in process.name()]
        head.suspend()
        time.sleep(2)
        os.kill(leader.pid, signal.SIGTERM)
        assert leader.wait(10) == EXIT_REQUEUE
        assert (tmp_path / "slurm" / AGAIN).exists()
        # Ray's idle workers miss their head half a minute later, and end by themselves.
        _, left = psutil.wait_procs(family, timeout=10)
        assert all(any(word.endswith("default_worker.py") for word in process.cmdline()) for process in left)
    finally:
        leader.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def asks(process: psutil.Process, port: int) -> bool:
    """Whether this is a sweep that speaks to Ray at a port."""
    with contextlib.suppress(psutil.Error):
        speaks = any(peer.raddr and peer.raddr.port == port for peer in process.net_connections("tcp"))
        return speaks and any("--resume" in word for word in process.cmdline())
    return False
