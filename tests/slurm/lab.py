"""What the tests do with a cluster: submit small trainings, watch them, disturb them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gesso.cli.main import main
from launch.runs.folder import RunFolder
from slurm import queue
from slurm.attempts import submitted
from tests.ports import free_ports_from

CLUSTER = Path(__file__).with_name("cluster.sh")
WITNESS = "--trainer.callbacks+=tests.slurm.witness.Witness"


def possible() -> bool:
    """Whether a cluster can be brought up here."""
    return os.getuid() == 0 and shutil.which("apt-get") is not None


@contextlib.contextmanager
def brought_up(
    *, nodes: int = 2, gpus: int = 2, cpus: int = 4, memory: int = 65536, partitions: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """A cluster of virtual nodes that claim so much each, and these partitions besides its own; its environment."""
    # Not pytest's folders: the names of sockets must be short.
    state = Path(tempfile.mkdtemp(prefix="gesso-slurm-", dir="/var/tmp"))
    port = free_ports_from(100)
    settings = {
        "STATE": state,
        "NODES": nodes,
        "GPUS": gpus,
        "CPUS": cpus,
        "MEM": memory,
        "PARTITIONS": " ".join(partitions),
        # Several clusters may be up at once. A job's own port follows from its number (slurm/script.py): those of this
        # cluster's jobs come after its daemons', or, where that is beyond 30,000, as far after 15,000.
        "PORT": port,
        "FIRST_JOB": port + 10 - 15_000,
    }
    own = {f"SLURMLAB_{name}": str(value) for name, value in settings.items()}
    environment = {**os.environ, **own}

    def bring(order: str) -> None:
        # One at a time: the first installs SLURM, and all write into /etc/hosts.
        with (state.parent / "gesso-slurm.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run([CLUSTER, order], env=environment, check=True, stdout=subprocess.DEVNULL)

    bring("up")
    try:
        yield {"SLURM_CONF": f"{state}/etc/slurm.conf", **own}
    finally:
        bring("down")
        shutil.rmtree(state, ignore_errors=True)


@dataclass(frozen=True)
class Lab:
    """Small trainings on the cluster of the environment."""

    shards: Path
    root: Path

    def training(self, *more: str) -> list[str]:
        """A training command of some seconds."""
        return [
            *("fit", "--config=mnist-dcgan", f"--data.path={self.shards}", "--data.global_batch_size=16"),
            *(
                "--model.generator.width=8",
                "--model.discriminator.width=8",
                "--model.latent_dim=8",
                f"--run.root={self.root}",
                "--run.kimg=3.2",
            ),
            *("--run.log_every_kimg=0.4", "--run.wandb=disabled", "--trainer.precision=32-true"),
            *("--evaluation.metrics=[]", "--evaluation.every_kimg=1.6", "--previews.every_kimg=100"),
            *("--checkpoints.every_kimg=0.8", "--checkpoints.monitor=null", WITNESS),
            *more,
        ]

    def submit(self, training: list[str], *options: str) -> RunFolder:
        """Queues a training; its run."""
        before = set(self.root.glob("*")) if self.root.exists() else set()
        assert main(["slurm", "submit", "--trust-paths", *options, "--", *training]) == 0
        (made,) = set(self.root.glob("*")) - before
        return RunFolder(made)


def job(run: RunFolder) -> queue.QueuedJob:
    """The run's last job."""
    number = submitted(run)[-1]
    return queue.jobs([number])[number]


def wait(
    question: Callable[[], Any], seconds: float, what: str, *, of: RunFolder | None = None, every: float = 0.2
) -> Any:
    """Asks until the answer is yes, and returns it; where it stays no, the logs of a run tell why."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(every)
    told = f"{slurm('scontrol', 'show', 'job')}\n{logs(of)}" if of else ""
    raise AssertionError(f"not within {seconds} seconds: {what}\n{told}")


def finished(run: RunFolder) -> bool:
    """Whether the run's job is over; it must not have failed."""
    now = job(run)
    assert now.alive or now.state == "COMPLETED", f"{now}\n{logs(run)}"
    return now.state == "COMPLETED"


def attempt_of(run: RunFolder) -> int:
    """How often SLURM has started the run's job again."""
    text = queue.slurm("scontrol", "--oneliner", "show", "job", submitted(run)[-1])
    return int(text.split(" Restarts=")[1].split()[0])


def logs(run: RunFolder) -> str:
    """All logs of a run, for a failure's report."""
    files = [*sorted((run.path / "logs").glob("*.log")), *(run.path / "slurm").glob("*")]
    return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def processes(run: RunFolder) -> list[int]:
    """The ranks of a run on this machine, by number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            command = _read(folder / "cmdline").split(b"\0")
            if str(run.path).encode() in command and b"--resume" in command and b"srun" not in command[0]:
                rank = [v for v in _read(folder / "environ").split(b"\0") if v.startswith(b"SLURM_PROCID=")]
                if rank:
                    found[int(rank[0].partition(b"=")[2])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def slurm(*command: str) -> str:
    """Runs one of SLURM's commands."""
    return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
