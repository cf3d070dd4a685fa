"""Options of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gesso.common.ranges import Count, Positive, Range, Whole, check_options

PORTS = Range(0, 65_535)


@dataclass(frozen=True)
class ServeOptions:
    """How models are served.

    Args:
        host: address to listen on; ``0.0.0.0``: every one of the machine's.
        port: 0: any free one.
        token: what requests have to bring; empty: none is asked for.
        max_batch: most pictures that a model makes at once; 0: the model's own, see ``Served.batch``.
        exact: fill each batch up, so that an answer's bytes do not depend on what else is asked for; None: the
            model's own, see ``Served.exact``.
        workers: copies of each model, which work at the same time.
        wait: longest time in seconds that a request waits for others of its batch.
        queue: most requests of a model that may be under way; more are told to come again.
        max_body: largest request in bytes.
        max_pixels: largest picture in pixels that is decoded.
        max_side: longest side of a result in pixels; a larger picture is made smaller.
        upload: longest time in seconds that a request may take to arrive.
        grace: longest time in seconds that requests under way have to end in, once the server is told to stop.

    Raises:
        ValueError: a number is out of its range.
    """

    host: str = "127.0.0.1"
    port: Whole = 8000
    token: str = ""
    max_batch: Whole = 0
    exact: bool | None = None
    workers: Count = 1
    wait: Positive = 0.005
    queue: Count = 64
    max_body: Count = 32 * 2**20
    max_pixels: Count = 32_000_000
    max_side: Count = 2048
    upload: Positive = 60.0
    grace: Positive = 30.0

    def __post_init__(self) -> None:
        check_options(type(self), vars(self))
        if self.port not in PORTS:
            raise ValueError(f"port is {self.port}; it must be a whole number {PORTS}")

    def threads(self, models: int) -> int:
        """Threads of each worker: the cores are shared."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // (self.workers * models))
