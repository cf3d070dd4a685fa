"""One progress bar for work in stages, on stderr; silent if stderr is no terminal, or on request."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Bar:
    """A progress bar, restarted at each stage.

    Args:
        shown: whether to show the bar; lines are printed anyway.
    """

    def __init__(self, shown: bool = True) -> None:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bars.add_task("", total=None)
        self._noted = time.monotonic()

    def start(self, stage: str, total: int | None) -> None:
        """Begins a stage of ``total`` steps (None: unknown)."""
        self._bars.reset(self._task, description=stage, total=total)

    def advance(self, steps: int) -> None:
        self._bars.advance(self._task, steps)

    def print(self, line: str) -> None:
        """Prints a line beside the bar."""
        if self._bars.disable:
            print(f"gesso: {line}", file=sys.stderr)
        else:
            self._bars.console.print(f"gesso: {line}", markup=False, highlight=False)

    def due(self, seconds: float = 2.0) -> bool:
        """True about every ``seconds``: time to save the progress."""
        now = time.monotonic()
        if now - self._noted < seconds:
            return False
        self._noted = now
        return True

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
