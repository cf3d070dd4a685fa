"""The run folder: all files of one training.

::

    runs/<name>/
        config.yaml      the resolved config
        run.json         identity, versions, git state, progress, state
        metrics.csv      images_seen,seconds,name,value
        samples/         grids, named by the images seen
        checkpoints/     <images>/ for each, and the links last and best
        report.html
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gesso.common.files import read_json, write_whole
from launch.checkpoints.files import STATE, is_complete, newest

PACKAGES = ("gesso", "torch", "torchvision", "lightning", "deepspeed", "webdataset", "wandb", "torchmetrics", "numpy")

#: Checkpoints are recorded from a thread of their own.
_UPDATING = threading.Lock()
_TOKEN = secrets.token_hex(4)


class Superseded(RuntimeError):
    """Another process has taken over this run."""


def this_process() -> str:
    """The name of this process, which run.json holds as the run's owner."""
    return f"process {os.getpid()} on {platform.node()} ({_TOKEN})"


def slurm_attempt() -> str | None:
    """The SLURM job of this process and its restart count, ``JOB.COUNT``; None outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{job}.{os.environ.get('SLURM_RESTART_COUNT', 0)}" if job else None


@dataclass(frozen=True)
class RunFolder:
    """A run's folder on disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def averages(self) -> Path:
        """Snapshots of power-function averages, by images seen."""
        return self.path / "averages"

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, by the link ``last`` if it stands; None before there is one."""
        return newest(self.checkpoints)

    def info(self) -> dict[str, Any]:
        """The content of run.json; {} before it exists.

        Raises:
            ValueError: it is damaged; names it and what to do.
        """
        file = self.path / "run.json"
        if not file.is_file():
            return {}
        remedy = "delete it: the run goes on from its last checkpoint, with its attempts and its W&B run forgotten"
        content = read_json(file, remedy=remedy)
        if not isinstance(content, dict):
            raise ValueError(f"{file}: no run's record; {remedy}")
        return content

    def update(self, **fields: object) -> None:
        """Merges ``fields`` into run.json, atomically.

        Raises:
            Superseded: ``owner`` is another process, and not among the ``fields``.
        """
        with _UPDATING:
            if "owner" not in fields:
                self.check_owner()
            # On the disk before it takes the earlier one's place: a power cut would leave it empty otherwise.
            write_whole(self.path / "run.json", json.dumps({**self.info(), **fields}, indent=1), lasting=True)

    def check_owner(self) -> None:
        """Checks that this process still is the run's owner.

        SLURM starts a job again when a node no longer answers, though its processes may live on there.

        Raises:
            Superseded: it is not.
        """
        owner = self.info().get("owner")
        if owner not in (None, this_process()):
            raise Superseded(f"{self.path}: {owner} has taken this run over; this one ends")


def check_idle(run: RunFolder) -> None:
    """Checks that no other process of this machine trains the run at this moment, where that can be known.

    Raises:
        ValueError: one does; names it and the remedy.
    """
    info, file = run.info(), run.path / "run.json"
    owner = re.match(r"process (\d+) on (\S+) ", str(info.get("owner")))
    if info.get("state") != "running" or not owner or owner[2] != platform.node() or int(owner[1]) == os.getpid():
        return
    try:
        fields = Path(f"/proc/{owner[1]}/stat").read_text().rpartition(")")[2].split()
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return  # it has ended, or this is no Linux
    started = int(booted[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK") if booted else math.inf
    # A process that began after the record was written has the number of one that has ended.
    if fields[0] not in "ZX" and started < file.stat().st_mtime:
        raise ValueError(
            f"{run.path}: {owner[0].strip()} trains it at this moment: wait for its end, or end it with "
            f"`kill -INT {owner[1]}`, which saves"
        )


def is_over(info: Mapping[str, Any]) -> bool:
    """Whether there is nothing left to train, from run.json: the run has its length, or a callback ended it.

    Version 0.1 also called those finished that a limit of Lightning's Trainer had ended.
    """
    whole = (info.get("images_seen") or 0) >= round(1000 * (info.get("total_kimg") or 0))
    return info.get("state") == "finished" and (whole or info.get("ended_by") is not None)


def at_images(images_seen: int) -> str:
    """Images seen as 12 digits, for names of files and folders that sort by number."""
    return f"{images_seen:012d}"


def open_run(path: str | os.PathLike[str]) -> RunFolder:
    """Opens the run at ``path``.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise FileNotFoundError(f"{path}: no run here (config.yaml is missing); `gesso fit` makes runs under runs/")
    return folder


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Finds the checkpoint at ``path``: a checkpoint itself, or a run's last one.

    Raises:
        FileNotFoundError: there is none.
    """
    given = Path(path)
    if not given.exists():
        raise FileNotFoundError(f"{given}: no such run or checkpoint")
    if given.is_file() or is_complete(given) or (given / STATE).exists():
        return given
    last = open_run(given).last_checkpoint
    if last is None:
        raise FileNotFoundError(f"{given}: this run has no checkpoint yet")
    return last


def new_run_path(root: str, name: str) -> Path:
    """A fresh folder name under ``root``."""
    return Path(root) / fresh_name(name, "run")


def fresh_name(name: str, default: str) -> str:
    """A new folder's name: ``name`` (``default`` if no character of it may be used), the time and a random suffix."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or default
    # Jobs of an array start in the same second.
    return f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether it was changed since; {} outside a checkout."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
