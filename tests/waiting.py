"""Waiting for the thing itself instead of for as long as it usually takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(question: Callable[[], Answer], what: str, seconds: float = 120, every: float = 0.02) -> Answer:
    """Asks until the answer is true, and returns it.

    Args:
        question: it may raise, where there is no hope.
        what: what is waited for, for the error.
        seconds: how long; a machine may be busy.

    Raises:
        AssertionError: not within that time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(every)
    return answer


def handles(process: int, signal: int) -> bool:
    """Whether a process (its number) has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (signal - 1) & 1)
