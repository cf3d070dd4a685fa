"""Ports for what tests start: nobody else gets them, be it another test's process or the system's next connection."""

from __future__ import annotations

import random
import socket

# The system's own begin at 32768.
_FIRST, _END = 20_000, 32_700
# Tests seed the generators of their processes, with the same seed: those would all draw the same ports.
_drawn = random.SystemRandom()
# Until this process ends. Bound and not listening, they let through who asks for an address to be used again
# (`SO_REUSEADDR`), as servers do, and no other call of `free_ports`, in whatever process.
_reserved: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """So many ports, in no order."""
    found: list[int] = []
    while len(found) < count:
        port = _drawn.randrange(_FIRST, _END)
        if _reserve(port):
            found.append(port)
    return found


def free_ports_from(count: int) -> int:
    """The first of so many ports in a row."""
    while True:
        first = _drawn.randrange(_FIRST, _END - count)
        if all(map(_reserve, range(first, first + count))):
            return first


def _reserve(port: int) -> bool:
    """Takes a port to which no other socket is bound; False: one is."""
    taken = socket.socket()
    try:
        taken.bind(("", port))
    except OSError:
        taken.close()
        return False
    # Only now: asked for before, it would let two of these sockets share the port.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(taken)
    return True
