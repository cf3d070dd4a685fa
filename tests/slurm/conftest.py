"""A real SLURM on this machine: a controller and two virtual nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.lab import CLUSTER, Lab


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Brings the cluster up; its environment variables."""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a SLURM of one's own needs root and Debian's packages")
    # SLURM's sockets have long names of their own.
    environment = {**os.environ, "SLURMLAB_STATE": f"/var/tmp/gesso-slurm-{os.getpid()}"}
    subprocess.run([CLUSTER, "up"], env=environment, check=True, stdout=subprocess.DEVNULL)
    yield {"SLURM_CONF": f"{environment['SLURMLAB_STATE']}/etc/slurm.conf"}
    subprocess.run([CLUSTER, "down"], env=environment, check=True)
    shutil.rmtree(environment["SLURMLAB_STATE"], ignore_errors=True)


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
