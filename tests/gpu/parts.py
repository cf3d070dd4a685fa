"""Runs the parts, each in a process of its own with a time of its own: one that fails or hangs stops no other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gpu import rows as table
from tests.gpu.rows import Row

ROOT = Path(__file__).parents[2]
#: Parts are not begun with less time than this, in seconds: a process imports for some of them.
LEAST = 15


@dataclass(frozen=True)
class Place:
    """Where parts run.

    Args:
        accelerator: ``gpu`` or ``cpu``; on a CPU everything is tiny.
        devices: how many GPUs, or processes of one thread.
        out: a folder for files.
    """

    accelerator: str
    devices: int
    out: Path

    @property
    def cuda(self) -> bool:
        return self.accelerator == "gpu"

    @property
    def device(self) -> str:
        """As torch names it."""
        return "cuda" if self.cuda else "cpu"


@dataclass(frozen=True)
class Part:
    """A group of things to try.

    Args:
        budget: seconds, after which it is ended; the rows that it gave stay. A CPU gets twice as many.
        needs_cuda: on a CPU it is skipped, by name.
        run: gives rows, one as soon as it is known; an exception becomes the last.
    """

    name: str
    budget: float
    run: Callable[[Place], Iterator[Row]]
    needs_cuda: bool = False


def attempt(part: Part, place: Place) -> Iterator[Row]:
    """The part's rows; an exception is a row that tells its last line."""
    try:
        yield from part.run(place)
    except Exception as error:
        yield Row(part.name, "the part itself", state="failed", detail=last_line(error))


def last_line(error: BaseException | str) -> str:
    """The last line of an error's text that is not empty, with the kind of an exception."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""


def run_all(
    parts: Sequence[Part],
    place: Place,
    seconds: float,
    heard: Callable[[Part, list[Row], float], None],
    command: Callable[[Part], list[str]],
) -> None:
    """Runs the parts one after the other within ``seconds`` altogether.

    Args:
        heard: is told each part, its rows and the seconds it took, when it has ended.
        command: the command line that runs a part and appends its rows to ``place.out / NAME.jsonl``.
    """
    end = time.monotonic() + seconds
    for part in parts:
        began = time.monotonic()
        # A CPU may have others to serve as well.
        left = min(part.budget * (1 if place.cuda else 2), end - began)
        if part.needs_cuda and not place.cuda:
            heard(part, [Row(part.name, "all of it", state="skipped", detail="needs CUDA")], 0.0)
        elif left < min(LEAST, part.budget):
            heard(part, [Row(part.name, "all of it", state="skipped", detail="no time was left")], 0.0)
        else:
            found = in_process(part, place, left, command(part))
            heard(part, found, time.monotonic() - began)


def in_process(part: Part, place: Place, seconds: float, command: list[str]) -> list[Row]:
    """Runs one part's command; its rows, and one more if it was ended or died."""
    written, log = place.out / f"{part.name}.jsonl", place.out / f"{part.name}.log"
    with log.open("w") as stream:
        # A session of its own: what it has started is ended with it.
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)
        try:
            code = process.wait(seconds)
            reason = last_line(log.read_text(errors="replace")) if code else ""
            ended = f"its process ended with {code}: {reason}" if code else ""
        except subprocess.TimeoutExpired:
            ended = f"it was ended after {seconds:.0f} s"
        finally:
            end_session(process)
    found = table.read(written)
    return [*found, Row(part.name, "the part itself", state="failed", detail=ended)] if ended else found


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what is left of those it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def own_command(part: Part, place: Place) -> list[str]:
    """The command line of `python -m tests.gpu` that runs one part."""
    where = ["--accelerator", place.accelerator, "--devices", str(place.devices), "--out", str(place.out)]
    return [sys.executable, "-m", "tests.gpu", "--one", part.name, *where]
