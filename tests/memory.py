"""How much memory a process holds."""

from __future__ import annotations

from pathlib import Path


def resident(what: str) -> int:
    """Bytes of this process in physical memory: now (``VmRSS``) or at most (``VmHWM``)."""
    # Not getrusage: its ru_maxrss goes through fork and exec, so that a child of a large pytest starts with its peak.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) * 1024
