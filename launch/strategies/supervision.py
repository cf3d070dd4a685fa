"""Supervision of the ranks that Lightning starts on this machine: when one dies, all others stop and name it.

Under torchrun the agent does this, under SLURM ``srun --kill-on-bad-exit``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import lightning as L
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from launch.callbacks.lookup import find

T = TypeVar("T")

#: Environment variable with the process that started this rank.
LAUNCHER = "GESSO_LAUNCHER"
#: Seconds between two checks of the other ranks.
INTERVAL = 0.5
#: Seconds that a rank has to stop by itself, with a report, once another one is lost.
PATIENCE = 60.0


class RankLost(RuntimeError):
    """Another rank has died."""


class Supervision(threading.Thread):
    """Thread that watches for lost ranks: prints which one was lost, and kills this process if it does not stop itself.

    Args:
        look: returns a description of the lost rank, or None.
        before_kill: called with that description before this process is killed.
    """

    def __init__(self, look: Callable[[], str | None], before_kill: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="supervision")
        self.lost: str | None = None
        self._look = look
        self._before_kill = before_kill
        self._over = threading.Event()

    def run(self) -> None:
        while (lost := self._look()) is None:
            if self._over.wait(INTERVAL):
                return
        self.lost = lost
        print(f"gesso: {lost}; ending this training", file=sys.stderr, flush=True)
        # A collective that waits for the lost rank may never return (NCCL), and no exception reaches it there.
        if not self._over.wait(PATIENCE):
            self._before_kill(lost)
            os._exit(1)

    def stop(self) -> None:
        """Stops watching: training is over, and ranks may end."""
        self._over.set()

    def lost_rank(self, error: BaseException, *, patience: float = 5.0) -> str | None:
        """Description of the lost rank that caused ``error``; None if no rank is lost.

        Args:
            error: what ended training.
            patience: seconds to wait for the watch to find a lost rank, if a collective has failed.
        """
        deadline = time.monotonic() + (patience if failed_collective(error) else 0.0)
        while not self.lost and time.monotonic() < deadline:
            time.sleep(INTERVAL / 5)
        return self.lost


def failed_collective(error: BaseException) -> bool:
    """Whether an error is of a collective operation: ranks could not reach each other."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def children(processes: list[subprocess.Popen[bytes]], first_rank: int) -> Callable[[], str | None]:
    """A check of the ranks that this process started; ``first_rank`` is its own rank."""

    def look() -> str | None:
        for number, process in enumerate(processes, first_rank + 1):
            if code := process.poll():
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"rank {number} (process {process.pid}) {how}"
        return None

    return look


def parent(process: int, rank: int) -> Callable[[], str | None]:
    """A check of the process that started this one."""
    return lambda: None if os.getppid() == process else f"rank {rank} (process {process}), which started this, is gone"


class OtherRanks(L.Callback):
    """Starts the other ranks of a training on this machine, whatever began it: a command line, a script, a notebook.

    Args:
        config: the resolved config, YAML.
        checkpoint: what all ranks go on from.
    """

    def __init__(self, config: str, checkpoint: Path | None) -> None:
        self.config = config
        self.checkpoint = checkpoint

    @contextlib.contextmanager
    def command(self, verb: str) -> Iterator[list[str]]:
        """Context manager: the command that starts a rank; its config file exists until the context is left."""
        with tempfile.TemporaryDirectory(prefix="gesso-") as folder:
            file = Path(folder, "config.yaml")
            file.write_text(self.config)
            command = [sys.executable, "-m", "gesso", verb, f"--config={file}"]
            yield [*command, *([f"--checkpoint={self.checkpoint}"] if self.checkpoint else [])]


class SupervisedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of a node's ranks, without its observer, which kills all of them without a word.

    Ranks of a gesso training are started by ``OtherRanks``; those of any other script run that script again.
    """

    @property
    def is_interactive_compatible(self) -> bool:
        return True

    @property
    def starts_others(self) -> bool:
        """Whether it will start other ranks."""
        return self.num_processes > 1 and not self.cluster_environment.creates_processes_externally

    def launch(
        self, function: Callable[..., T], *args: object, trainer: L.Trainer | None = None, **kwargs: object
    ) -> T:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        with contextlib.ExitStack() as until_the_end:
            if not self.cluster_environment.creates_processes_externally:
                until_the_end.enter_context(_environment_kept())
                os.environ[LAUNCHER] = str(os.getpid())
                others = find(trainer, OtherRanks) if trainer is not None else None
                if trainer is not None and trainer.state.fn is not None and others is not None:
                    command = until_the_end.enter_context(others.command(trainer.state.fn.value))
                    self._start(command, trainer.default_root_dir)
                else:
                    self._call_children_scripts()
            _set_num_threads_if_needed(num_processes=self.num_processes)
            return function(*args, **kwargs)

    def _start(self, command: list[str], folder: str) -> None:
        """Starts this node's ranks but the first, as Lightning's ``_call_children_scripts`` does."""
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ.update(
            MASTER_ADDR=environment.main_address,
            MASTER_PORT=str(environment.main_port),
            NODE_RANK=str(environment.node_rank()),
            LOCAL_RANK=str(environment.local_rank()),
            WORLD_SIZE=str(self.num_processes * self.num_nodes),
        )
        # A family of a script's own folder is found by its other ranks, too.
        shared = {**os.environ, "GESSO_RUN": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.procs = [
            subprocess.Popen(command, env={**shared, "LOCAL_RANK": str(rank)}) for rank in range(1, self.num_processes)
        ]

    def supervision(self, before_kill: Callable[[str], None]) -> Supervision | None:
        """Supervision of the ranks that this one started, or of the one that started it; None: there are none."""
        first = self.cluster_environment.node_rank() * self.num_processes
        if self.procs:
            return Supervision(children(self.procs, first), before_kill)
        launcher = int(os.environ.get(LAUNCHER, 0))
        if self.cluster_environment.local_rank() > 0 and launcher:
            return Supervision(parent(launcher, first), before_kill)
        return None


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Context manager: restores the environment variables of ranks, so that the next training does not inherit them."""
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", LAUNCHER)
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
