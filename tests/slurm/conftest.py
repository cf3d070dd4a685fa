"""A real SLURM on this machine: a controller and two virtual nodes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.slurm.lab import CLUSTER, Lab


@contextlib.contextmanager
def brought_up(
    *, nodes: int = 2, gpus: int = 2, cpus: int = 4, memory: int = 65536, partitions: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """A cluster of virtual nodes that claim so much each, and these partitions besides its own; its environment."""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a SLURM of one's own needs root and Debian's packages")
    # Not pytest's folders: the names of sockets must be short.
    state = Path(tempfile.mkdtemp(prefix="gesso-slurm-", dir="/var/tmp"))
    settings = {
        "STATE": state,
        "NODES": nodes,
        "GPUS": gpus,
        "CPUS": cpus,
        "MEM": memory,
        "PARTITIONS": " ".join(partitions),
        # Several clusters may be up at once.
        "PORT": random.randrange(20_000, 30_000, 10),
    }
    own = {f"SLURMLAB_{name}": str(value) for name, value in settings.items()}
    environment = {**os.environ, **own}
    subprocess.run([CLUSTER, "up"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        yield {"SLURM_CONF": f"{state}/etc/slurm.conf", **own}
    finally:
        subprocess.run([CLUSTER, "down"], env=environment, check=True)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Two nodes."""
    with brought_up() as environment:
        yield environment


@pytest.fixture
def lab(cluster: dict[str, str], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The cluster, small trainings to send there, and a folder for their runs."""
    for name, value in {**cluster, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CLUSTER.parents[2])}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # Nobody's own site defaults.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("GESSO_RUN", raising=False)
    return Lab(shards=shards, root=tmp_path / "runs")
