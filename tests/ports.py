"""Ports for what tests start: nothing listens there, and the system gives them to no connection meanwhile."""

from __future__ import annotations

import random
import socket

# The system's own begin at 32768.
_FIRST, _END = 20_000, 32_700
# Tests seed the generators of their processes, with the same seed: those would all draw the same ports.
_drawn = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """So many ports, in no order."""
    found: set[int] = set()
    while len(found) < count:
        port = _drawn.randrange(_FIRST, _END)
        if _is_free(port):
            found.add(port)
    return list(found)


def free_ports_from(count: int) -> int:
    """The first of so many ports in a row."""
    while True:
        first = _drawn.randrange(_FIRST, _END - count)
        if all(map(_is_free, range(first, first + count))):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
