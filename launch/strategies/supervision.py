"""Ranks that Lightning starts on this machine watch each other: one that dies ends all, soon, and is named.

Under torchrun the agent does this, under SLURM ``srun --kill-on-bad-exit``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

#: Environment variable with the process that started this rank.
LAUNCHER = "GESSO_LAUNCHER"
#: Seconds between two looks at the others.
INTERVAL = 0.5
#: Seconds that a rank has to end by itself, with a report, once another one is lost.
PATIENCE = 60.0


class RankLost(RuntimeError):
    """Another rank has died."""


class Supervision(threading.Thread):
    """Watches for lost ranks; says which one it was, and ends this process if it does not end by itself.

    Args:
        look: returns what is lost, in words, or None.
        last_words: called with these words before this process is ended the hard way.
    """

    def __init__(self, look: Callable[[], str | None], last_words: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="supervision")
        self.lost: str | None = None
        self._look = look
        self._last_words = last_words
        self._over = threading.Event()

    def run(self) -> None:
        while (lost := self._look()) is None:
            if self._over.wait(INTERVAL):
                return
        self.lost = lost
        print(f"gesso: {lost}; ending this training", file=sys.stderr, flush=True)
        # A collective that waits for the lost rank may never return (NCCL), and no exception reaches it there.
        if not self._over.wait(PATIENCE):
            self._last_words(lost)
            os._exit(1)

    def stop(self) -> None:
        """Training is over: whoever ends now, may."""
        self._over.set()

    def verdict(self, error: BaseException, *, patience: float = 5.0) -> str | None:
        """Which rank's loss lies behind ``error``; waits for it to show if a collective has failed."""
        deadline = time.monotonic() + (patience if failed_collective(error) else 0.0)
        while not self.lost and time.monotonic() < deadline:
            time.sleep(INTERVAL / 5)
        return self.lost


def failed_collective(error: BaseException) -> bool:
    """Whether ranks could not reach each other."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def children(processes: list[subprocess.Popen[Any]], first_rank: int) -> Callable[[], str | None]:
    """Looks at the ranks that this process started; ``first_rank`` is its own."""

    def look() -> str | None:
        for number, process in enumerate(processes, first_rank + 1):
            if code := process.poll():
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"rank {number} (process {process.pid}) {how}"
        return None

    return look


def parent(process: int, rank: int) -> Callable[[], str | None]:
    """Looks at the rank that started this one."""
    return lambda: None if os.getppid() == process else f"rank {rank} (process {process}), which started this, is gone"


class SupervisedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of a node's ranks, without its observer, which kills all of them without a word."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[LAUNCHER] = str(os.getpid())
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def supervision(self, last_words: Callable[[str], None]) -> Supervision | None:
        """The watch of this rank over those that it started, or over the one that started it."""
        first = self.cluster_environment.node_rank() * self.num_processes
        if self.procs:
            return Supervision(children(self.procs, first), last_words)
        launcher = int(os.environ.get(LAUNCHER, 0))
        if self.cluster_environment.local_rank() > 0 and launcher:
            return Supervision(parent(launcher, first), last_words)
        return None
