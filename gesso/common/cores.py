"""How many cores this process may really use: a container may have fewer than the machine shows."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def granted_cores(ranks: int = 1) -> int:
    """Cores that this process may use: those it may run on, or its share of the control group's CPU quota, if less.

    Args:
        ranks: how many processes like this one share the quota.
    """
    shown = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(shown, cpu_quota() / ranks)))


def cpu_quota(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """The CPU quota of this process's control group and of those around it, in cores; infinite where there is none.

    Args:
        root: where control groups are mounted (version 2, or version 1 with its ``cpu`` controller).
        own: the file that names this process's control group.
    """
    names = [""]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        names += [
            line.split(":", 2)[2].strip("/") for line in own.read_text(encoding="utf-8").splitlines() if ":" in line
        ]
    quotas = [math.inf]
    for name in names:
        for group in [Path(name), *Path(name).parents]:
            quotas += [_of_version_2(root / group), _of_version_1(root / "cpu" / group)]
    return min(quotas)


def _of_version_2(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    return math.inf


def _of_version_1(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
        return quota / period if quota > 0 else math.inf
    return math.inf
