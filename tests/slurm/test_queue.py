"""What SLURM's commands say when its controller is out of reach: nobody has refused anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm import queue

pytestmark = pytest.mark.process


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``sbatch`` that ends with an error, which is to be written into ``error``."""
    command = tmp_path / "sbatch"
    command.write_text(f"#!/bin/sh\ncat {tmp_path}/error >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "error"


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: fatal: Could not establish a configuration source\n",
        "sbatch: error: Unable to contact slurm controller (connect failure)\n",
        "allocation failure: Unable to contact slurm controller (connect failure)\n",
    ],
)
def test_a_controller_out_of_reach_has_not_refused(sbatch: Path, said: str) -> None:
    sbatch.write_text(said)
    with pytest.raises(queue.ControllerUnreachable, match=r"^SLURM's controller cannot be reached from here: "):
        queue.slurm("sbatch", "--test-only", "job.sh")


def test_a_refusal_is_a_refusal(sbatch: Path) -> None:
    sbatch.write_text("allocation failure: Requested node configuration is not available\n")
    with pytest.raises(RuntimeError, match="Requested node configuration is not available") as caught:
        queue.slurm("sbatch", "--test-only", "job.sh")
    assert not isinstance(caught.value, queue.ControllerUnreachable)
