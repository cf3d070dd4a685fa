"""Parallel map with ordered results and bounded memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """Pool of processes; with fewer than two, work is done in this process."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        if workers > 1:
            # Spawned, not forked: a fork inherits locks that the parent's threads hold.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_parent)

    def map(self, function: Callable[[T], R], inputs: Iterable[T]) -> Iterator[R]:
        """``map(function, inputs)``, computed a few results ahead.

        Raises:
            RuntimeError: a process died.
        """
        if self._executor is None:
            yield from map(function, inputs)
            return
        pending: deque[Future[R]] = deque()
        try:
            for value in inputs:
                pending.append(self._executor.submit(function, value))
                if len(pending) > 2 * self._workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (out of memory, or a decoder crashed); what is done is kept: run again with "
                "fewer --workers"
            ) from error

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
