"""The models of a server by name, each with its queue."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from launch.serving.answers import Seal
from launch.serving.asks import Ask
from launch.serving.batching import Answer, Batcher
from launch.serving.options import ServeOptions
from launch.serving.served import Served
from launch.serving.watching import Watch

Made = TypeVar("Made")
#: Threads that decode and encode pictures.
HANDS = 4


class Desk:
    """Takes asks for models and gives answers.

    Args:
        models: of different names.
        options: how they are served.
        seal: what puts credentials into each answer; None: nothing does.
    """

    def __init__(self, models: Sequence[Served], options: ServeOptions, seal: Seal | None = None) -> None:
        self.options, self.seal, self.watch = options, seal, Watch()
        self.models = {served.facts.name: served for served in models}
        self._pace = dict.fromkeys(self.models, 0.1)
        self._batchers = {
            name: Batcher(served, options, functools.partial(self._note, name)) for name, served in self.models.items()
        }
        self._hands = ThreadPoolExecutor(HANDS, "pictures")

    async def answer(self, model: str, ask: Ask) -> Answer:
        """The model's answer.

        Raises:
            ValueError: it cannot do that; one line.
        """
        self.models[model].check(ask)
        return await asyncio.wrap_future(self._batchers[model].submit(ask))

    async def aside(self, work: Callable[[], Made]) -> Made:
        """What ``work`` gives, done by another thread: pictures take milliseconds to decode and encode."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, work)

    def waiting(self, model: str) -> int:
        """Asks that no worker has taken yet."""
        return len(self._batchers[model])

    def pace(self, model: str) -> float:
        """Seconds that an ask takes, as the last ones did."""
        # Of no model of this server, nothing is known.
        return self._pace.get(model, 0.1)

    def close(self) -> bool:
        """Lets all threads end; False: one is still at work."""
        self._hands.shutdown(wait=False, cancel_futures=True)
        # Each is told, also after one that does not end.
        ended = [batcher.close() for batcher in self._batchers.values()]
        return all(ended)

    def _note(self, model: str, size: int, seconds: float) -> None:
        self.watch.batch(model, size, seconds)
        self._pace[model] += 0.2 * (seconds / size / self.options.workers - self._pace[model])
