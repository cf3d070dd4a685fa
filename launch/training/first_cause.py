"""What went wrong first: an error of the clean-up that follows must not take its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import lightning as L

from gesso.common.text import one_line
from launch.callbacks.lookup import find


class FirstCause(L.Callback):
    """Callback: remembers the error that ended training, before anything is cleaned up. Comes before all others."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.error = self.error or exception


@contextlib.contextmanager
def first_cause(trainer: L.Trainer) -> Iterator[None]:
    """Context manager: what leaves it is the error that ended training, with that of the clean-up as a note.

    (Lightning tears its strategy, loops and loggers down before it raises, and an error from there would be raised
    instead.)
    """
    try:
        yield
    except SystemExit:
        # Lightning's, for a Ctrl-C that did not wait.
        raise
    except BaseException as problem:
        remembered = find(trainer, FirstCause)
        first = remembered.error if remembered else None
        if first is None or first is problem:
            raise
        first.add_note(f"clean-up failed, too: {one_line(f'{type(problem).__name__}: {problem}')}")
        raise first from first.__cause__
