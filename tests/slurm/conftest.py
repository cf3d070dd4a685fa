"""A real SLURM on this machine: a controller and two virtual nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.lab import CLUSTER, Lab, brought_up, possible


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Two nodes."""
    if not possible():
        pytest.skip("a SLURM of one's own needs root and Debian's packages")
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
