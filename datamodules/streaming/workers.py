"""Computes results ahead, in threads or processes, in order, each with the block of memory that it was written to.

Threads start at once, but wait for each other's Python code, and a training's waits for theirs. Processes do not, and
write into memory that they share with their parent and use again. A DataLoader's send each batch in new memory, which
the kernel clears and maps anew: two of these make 1.6 times as many images of 224 px, and 1.4 times as many of 64.
"""

from __future__ import annotations

import contextlib
import gc
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from datamodules.streaming.buffers import Buffers, lend

T = TypeVar("T")
#: Writes what belongs to a number into memory, and returns the rest; for processes, something that can be pickled.
Make = Callable[[int, Tensor], T]
WorkerKind = Literal["thread", "process"]
WORKER_KIND: WorkerKind = "process" if sys.platform == "linux" else "thread"

# Blocks that the receiver may keep while others are being filled; beyond these it gets copies.
_LENT = 2
#: Signals that workers ignore: a stop sent to all of a job's processes must not lose a batch of the parent.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_buffers = Buffers()


def prepared(
    make: Make[T], numbers: Iterator[int], shape: Sequence[int], workers: int, kind: WorkerKind
) -> Iterator[tuple[Tensor, T]]:
    """``make`` of each number, in order, a few of them ahead.

    Args:
        make: gets a number and a uint8 tensor of ``shape`` with arbitrary contents.
        numbers: may be endless.
        shape: of a block of memory.
        workers: 0: all is made when it is asked for.
        kind: of the workers. Processes are forked when the first result is asked for.

    Yields:
        the tensor, as long as it is held nobody else's, and what ``make`` returned.

    Raises:
        RuntimeError: a process died.
        Exception: whatever ``make`` raises.
    """
    if workers and kind == "process":
        return _by_processes(make, numbers, shape, workers)

    def work(number: int) -> tuple[Tensor, T]:
        memory = _buffers.empty(shape, torch.uint8)
        return memory, make(number, memory)

    return _by_threads(work, numbers, workers) if workers else map(work, numbers)


def _by_threads(work: Callable[[int], T], numbers: Iterator[int], threads: int) -> Iterator[T]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gesso-loader")
    try:
        pending = deque(pool.submit(work, number) for number in islice(numbers, threads + 2))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, number) for number in islice(numbers, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _by_processes(
    make: Make[T], numbers: Iterator[int], shape: Sequence[int], workers: int
) -> Iterator[tuple[Tensor, T]]:
    ahead = 2 * workers  # one that a process works at, and one that it finds when it is done
    # Not /dev/shm, of which containers have little: this is memory like any other, but the forks have the same.
    memory = mmap.mmap(-1, (ahead + _LENT) * math.prod(shape))
    blocks = np.frombuffer(memory, np.uint8).reshape(-1, *shape)
    free = list(range(len(blocks)))
    pending: deque[tuple[_Worker, int]] = deque()
    crew: list[_Worker] = []

    def receive() -> tuple[Tensor, T]:
        worker, block = pending.popleft()
        answer = worker.answer()
        if not free:  # the next order needs one
            free.append(block)
            return torch.tensor(blocks[block]), answer
        return lend(blocks[block], free.append, block), answer

    try:
        for _ in range(workers):
            crew.append(_Worker(make, blocks, crew))
        for worker, number in zip(cycle(crew), numbers, strict=False):
            block = free.pop()  # the last one that came back, which may still be in a cache
            worker.order(block, number)
            pending.append((worker, block))
            if len(pending) == ahead:
                yield receive()
        while pending:
            yield receive()
    finally:
        for worker in crew:
            worker.dismiss()
        for worker in crew:
            worker.wait()


class _Worker:
    """A forked process that fills blocks on request.

    It ends when it is dismissed, or when this process is gone and nobody can write into its pipe any more. (Later forks
    hold the pipes of earlier ones open, and end first.)
    """

    def __init__(self, make: Make[Any], blocks: np.ndarray, elders: list[_Worker]) -> None:
        self._pipe, orders = multiprocessing.Pipe()
        with warnings.catch_warnings():
            # Threads hold locks that are never opened in a fork; the code below asks for none of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            for worker in (*elders, self):
                worker._pipe.close()
            _serve(make, blocks, orders)
        orders.close()

    def order(self, block: int, number: int) -> None:
        """Requests the result for a number, written to a block."""
        with contextlib.suppress(OSError):  # ``answer`` says what happened
            self._pipe.send((block, number))

    def answer(self) -> Any:
        """The result of ``make`` for the oldest order that has not been answered."""
        try:
            done, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            status = self.wait()
            how = f"of {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
            raise RuntimeError(
                f"a process that prepares batches died {how}; if memory was short, set --data.workers lower"
            ) from None
        if not done:
            raise answer
        return answer

    def dismiss(self) -> None:
        """Ends the process after its current work."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        self._pipe.close()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:
            return 0  # waited for already


def _serve(make: Make[Any], blocks: np.ndarray, orders: Any) -> NoReturn:
    """The main loop of the forked process."""
    status = 1
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        # What is the parent's stays as it is: looked at by the collector, its pages would be copied one by one.
        gc.freeze()
        torch.set_num_threads(1)
        while (order := orders.recv()) is not None:
            block, number = order
            try:
                answer = True, make(number, torch.from_numpy(blocks[block]))
            except Exception as error:
                answer = False, _portable(error)
            orders.send(answer)
        status = 0
    except (EOFError, OSError):
        pass  # the parent is gone
    finally:
        os._exit(status)


def _portable(error: Exception) -> Exception:
    """The error, with its traceback as a note, as it can be sent."""
    error.add_note(f"In a process that prepares batches:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
