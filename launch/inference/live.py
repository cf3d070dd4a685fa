"""Style transfer of pictures as they come: those that come while one is worked on are dropped, so that none is late."""

from __future__ import annotations

import contextlib
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from torch import Tensor

from launch.inference.cameras import TICK, Shot, Source
from launch.inference.video_in import Frame
from launch.inference.video_out import VideoWriter
from lightning_modules.pictures.smoothing import TemporalSmoother

#: Frames over which the rate of the moment is taken, and the times of a frame at the end.
RECENT, REMEMBERED = 30, 1000
#: How often a wait looks whether it is to end, in seconds.
PATIENCE = 0.1
#: x264's choice for what must be written as it comes.
PRESET = "veryfast"


@dataclass(frozen=True)
class LiveReport:
    """How it goes, or went.

    Attributes:
        frames: number of frames stylised.
        dropped: number of those that came and were not.
        seconds: since the beginning.
        fps: frames stylised a second: lately or, at the end, all along.
        work: seconds that a frame takes, a median.
        delay: seconds from a frame's arrival to the end of the work on it, a median.
    """

    frames: int
    dropped: int
    seconds: float
    fps: float
    work: float
    delay: float

    def __str__(self) -> str:
        return f"{self.fps:.1f} frames/s, {1000 * self.work:.1f} ms a frame, {self.dropped} dropped"


class BrokenOff(ValueError):
    """The source gave no more, or a frame could not be stylised; what came before is kept, see ``report``."""

    def __init__(self, reason: Exception, report: LiveReport) -> None:
        super().__init__(str(reason))
        self.report = report


@contextlib.contextmanager
def ending() -> Iterator[threading.Event]:
    """Context manager: Ctrl-C and SIGTERM set the event that it gives; a second Ctrl-C raises KeyboardInterrupt.

    In any thread but the main one the event is set by nobody.
    """
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Feed:
    """The newest picture of a source, which a thread reads; older ones that nobody took are dropped and counted.

    Pictures of a source that is not ``paced`` come when they are due.

    Args:
        source: closed at the end.
        every: hold the source back instead, so that none is dropped.

    Attributes:
        dropped: number of pictures that nobody took.
    """

    def __init__(self, source: Source, *, every: bool = False) -> None:
        self.source, self.every = source, every
        self.held_back = not source.paced and not every
        self.dropped = 0
        self._changed = threading.Condition()
        self._newest: tuple[Shot, float] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True, name="camera")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        # A camera that has gone silent is left to the process's end.
        self._thread.join(1)

    def take(self, stop: threading.Event) -> tuple[Shot, float] | None:
        """The newest picture that has not been taken yet, and when it came (``time.monotonic``); waits for one.

        Returns:
            None after the last, or when ``stop`` is set.

        Raises:
            ValueError: the source has broken off; what came before has been taken.
        """
        with self._changed:
            while self._newest is None and not self._ended and not stop.is_set():
                self._changed.wait(PATIENCE)
            if stop.is_set():
                return None
            newest, self._newest = self._newest, None
            self._changed.notify_all()
            if newest is None and self._error is not None:
                raise self._error
            return newest

    def _read(self) -> None:
        begin = time.monotonic()
        try:
            for shot in self.source.shots():
                if self.held_back and self._stop.wait(max(0.0, begin + float(shot.pts * TICK) - time.monotonic())):
                    break
                if not self._put(shot):
                    break
        except Exception as error:
            self._error = error
        finally:
            # Here, as a source must not be closed while it is read.
            self.source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, shot: Shot) -> bool:
        """Offers a picture; False: nobody wants any more."""
        with self._changed:
            while self.every and self._newest is not None and not self._stop.is_set():
                self._changed.wait(PATIENCE)
            self.dropped += self._newest is not None and not self._stop.is_set()
            self._newest = (shot, time.monotonic())
            self._changed.notify_all()
        return not self._stop.is_set()


def stylize_live(
    source: Source,
    stylize: Callable[[Tensor], Tensor],
    *,
    stop: threading.Event,
    out: Path | None = None,
    show: Callable[[Tensor], None] | None = None,
    smooth: float = 0.0,
    every: bool = False,
    progress: Callable[[LiveReport], None] = lambda report: None,
) -> LiveReport:
    """Stylises what comes until the source ends or ``stop`` is set, and writes what has come by then.

    Args:
        source: a camera or what stands for one; closed at the end.
        stylize: one frame [1, 3, H, W] in [-1, 1] on the CPU to one picture, of one size all along, on any device.
        stop: ends it after the frame that is being worked on.
        out: an .mp4 file, written when it is whole; None: nothing is written.
        show: gets each result, [1, 3, H, W] in [-1, 1].
        smooth: see ``stylize_video``; 0 takes no time.
        every: work on every frame, however long that takes, and as fast as they can be read.
        progress: told after each frame how it goes.

    Raises:
        BrokenOff: the source broke off, or a frame could not be stylised; the frames before are in ``out``.
        ValueError: ``smooth`` or the name of ``out`` will not do.
        OSError: ``out`` cannot be written.
    """
    smoother = TemporalSmoother(smooth) if smooth else None
    meter = _Meter()
    broken: Exception | None = None
    with contextlib.ExitStack() as stack:
        feed = stack.enter_context(Feed(source, every=every))
        writer = stack.enter_context(VideoWriter(out, source, preset=PRESET)) if out else None
        try:
            while (taken := feed.take(stop)) is not None:
                shot, came = taken
                begun = time.monotonic()
                content = shot.picture()
                picture = stylize(content)
                if smoother is not None:
                    picture = smoother(content, picture)
                picture = picture.cpu()
                if writer is not None:
                    writer.write(Frame(content, shot.pts, shot.duration), picture)
                if show is not None:
                    show(picture)
                meter.note(came, begun)
                progress(meter.report(feed.dropped, lately=True))
        except Exception as error:
            # What has been seen live cannot be had again: the file is finished first.
            broken = error
    if broken is not None and not isinstance(broken, ValueError | RuntimeError):
        raise broken
    if broken is not None:
        raise BrokenOff(broken, meter.report(feed.dropped)) from broken
    return meter.report(feed.dropped)


class _Meter:
    """Counts and times frames."""

    def __init__(self) -> None:
        self.frames = 0
        self.begin = time.monotonic()
        self.ends: deque[float] = deque([self.begin], maxlen=RECENT + 1)
        self.times: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    def note(self, came: float, begun: float) -> None:
        now = time.monotonic()
        self.frames += 1
        self.ends.append(now)
        self.times.append((now - begun, now - came))

    def report(self, dropped: int, *, lately: bool = False) -> LiveReport:
        times = list(self.times)[-RECENT:] if lately else list(self.times)
        work, delay = (statistics.median(one) for one in zip(*times, strict=True)) if times else (0.0, 0.0)
        seconds = self.ends[-1] - self.begin
        span, count = (self.ends[-1] - self.ends[0], len(self.ends) - 1) if lately else (seconds, self.frames)
        return LiveReport(self.frames, dropped, seconds, count / span if span else 0.0, work, delay)


def summary(report: LiveReport) -> str:
    """The end in one line."""
    return (
        f"{report.frames} frames in {report.seconds:.1f} s: {report}, shown {1000 * report.delay:.0f} ms after it came"
    )
