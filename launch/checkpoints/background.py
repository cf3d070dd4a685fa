"""Writes checkpoints while training goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from launch.checkpoints import layout


class BackgroundIO(CheckpointIO):
    """Lightning's way to a checkpoint folder: training waits for the copy to host memory, a thread does the rest.

    There is one thread, and one copy at a time: the next save waits until the last one is on the disk.
    What went wrong in the thread is raised by the next call here.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._error: BaseException | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object = None
    ) -> None:
        self.wait()
        tree = {key: layout.to_host(value) for key, value in checkpoint.items()}
        self.then(lambda: layout.write(Path(path), tree))

    def then(self, action: Callable[[], None]) -> None:
        """Runs ``action`` in the thread, after all that was asked of it before, if that went well."""
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        try:
            self._last = self._thread.submit(self._run, action)
        except RuntimeError:
            # The process ends while training, in a thread of it, goes on: as when a sweep's worker is told to stop.
            # Then no pool takes any more work, and what was to be saved is saved here.
            if self._last is not None:
                self._last.result()
            self._run(action)

    def _run(self, action: Callable[[], None]) -> None:
        try:
            if self._error is None:
                action()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Returns when everything is on the disk; raises like ``check``."""
        if self._last is not None:
            self._last.result()
        self.check()

    def check(self) -> None:
        """Raises what went wrong so far; does not wait.

        Raises:
            OSError: a checkpoint could not be written; earlier ones are untouched.
        """
        error, self._error = self._error, None
        if isinstance(error, OSError):
            what = f"could not save {error.filename or 'a checkpoint'} ({error.strerror or error})"
            raise OSError(error.errno, f"{what}; earlier checkpoints are untouched") from error
        if error is not None:
            raise error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return layout.read(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        layout.remove(Path(path))

    def teardown(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
