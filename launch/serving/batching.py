"""A model's queue: asks that come at the same time are answered in one batch, by one of its workers."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from launch.serving.asks import Ask, Verb
from launch.serving.options import ServeOptions
from launch.serving.served import Served


class Answer(NamedTuple):
    """A picture, uint8 [H, W, 1 or 3], and how many were made at once."""

    picture: np.ndarray
    batch: int


@dataclass
class _Job:
    ask: Ask
    answer: Future[Answer] = field(default_factory=Future)


class Batcher:
    """Threads, each with its own copy of a model, that take asks out of one queue.

    The oldest ask decides what is done next; those of its key go with it, up to the model's batch. It waits for them
    at most ``options.wait`` seconds, and not at all when the batch is full.

    Args:
        served: the model.
        options: how it is served.
        watch: is told of each batch: how many asks it has, and how many seconds it took.
    """

    def __init__(self, served: Served, options: ServeOptions, watch: Callable[[int, float], None]) -> None:
        self.served, self.options, self.watch = served, options, watch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        copies = [served, *(served.again() for _ in range(options.workers - 1))]
        self._threads = [
            threading.Thread(target=self._work, args=(copy,), name=f"{served.facts.name}-{number}", daemon=True)
            for number, copy in enumerate(copies)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Number of asks that no worker has taken yet."""
        return len(self._jobs)

    def submit(self, ask: Ask) -> Future[Answer]:
        """Puts an ask into the queue; the future raises what the model raises.

        Raises:
            RuntimeError: the batcher is closed.
        """
        job = _Job(ask)
        with self._changed:
            if self._closed:
                raise RuntimeError("the server has stopped")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer

    def limit(self, verb: Verb) -> int:
        """How many asks are answered at once, at most."""
        own = self.served.batch(verb)
        return (self.options.max_batch or own) if self.served.batches(verb) else 1

    def close(self, seconds: float = 1.0) -> bool:
        """Lets the workers end, and waits for them; False: one is still at work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, served: Served) -> None:
        while jobs := self._next():
            started = time.perf_counter()
            self._answer(served, jobs)
            self.watch(len(jobs), time.perf_counter() - started)

    def _next(self) -> list[_Job]:
        """The next batch; empty: there will be none."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                first = self._jobs[0]
                limit = self.limit(first.ask.verb)
                self._changed.wait_for(functools.partial(self._full, first, limit), self.options.wait)
                if self._jobs and self._jobs[0] is first:
                    return self._take(first, limit)
                # Another worker was faster.

    def _full(self, first: _Job, limit: int) -> bool:
        """Whether waiting for more would be in vain."""
        if self._closed or not self._jobs or self._jobs[0] is not first:
            return True
        return limit == 1 or sum(job.ask.key == first.ask.key for job in self._jobs) >= limit

    def _take(self, first: _Job, limit: int) -> list[_Job]:
        taken, left = list[_Job](), deque[_Job]()
        for job in self._jobs:
            (taken if len(taken) < limit and job.ask.key == first.ask.key else left).append(job)
        self._jobs = left
        return taken

    def _answer(self, served: Served, jobs: Sequence[_Job]) -> None:
        # A client that has gone needs no answer.
        waiting = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            pictures = self._run(served, [job.ask for job in waiting])
        except Exception as error:
            if len(waiting) == 1:
                waiting[0].answer.set_exception(error)
                return
            for job in waiting:  # one of them must not cost the others
                self._answer_alone(served, job)
            return
        for job, picture in zip(waiting, pictures, strict=True):
            job.answer.set_result(Answer(picture, len(waiting)))

    def _answer_alone(self, served: Served, job: _Job) -> None:
        try:
            job.answer.set_result(Answer(self._run(served, [job.ask])[0], 1))
        except Exception as error:
            job.answer.set_exception(error)

    def _run(self, served: Served, asks: list[Ask]) -> list[np.ndarray]:
        verb, count = asks[0].verb, len(asks)
        exact = served.exact(verb) if self.options.exact is None else self.options.exact
        missing = self.limit(verb) - count if exact else 0
        return served.run(asks + asks[-1:] * missing)[:count]
