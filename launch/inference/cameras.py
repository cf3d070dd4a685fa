"""Where live pictures come from: cameras by number, streams by address, and clips and pipes that stand for a camera."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gesso.common.pictures import is_picture
from gesso.common.pixels import to_float
from launch.inference.video_in import UNSPECIFIED, VideoReader

#: Seconds of a tick of live pictures' timestamps: whole numbers of them at every usual rate.
TICK = Fraction(1, 90_000)
#: What a camera's rate is taken for that does not tell it.
USUAL_RATE = 30.0


class Shot(NamedTuple):
    """A picture that has come, still as it was coded: most of a fast camera's are never looked at.

    Attributes:
        picture: decodes it: [1, 3, H, W] in [-1, 1], upright RGB.
        pts: when it was taken, in ticks of ``TICK`` since the first.
        duration: how long it is shown if no other follows, likewise.
    """

    picture: Callable[[], Tensor]
    pts: int
    duration: int


class Source(Protocol):
    """A camera or what stands for one; an ``Origin`` for ``VideoWriter``.

    Attributes:
        paced: its pictures come by themselves when they are due; a file's must be held back until then.
    """

    paced: bool
    fps: Fraction
    time_base: Fraction
    start: Fraction
    pixel_aspect: Fraction
    primaries: int
    transfer: int
    sounds: Sequence[Any]

    def shots(self) -> Iterator[Shot]:
        """The pictures as they come; once only.

        Raises:
            ValueError: no more can be read, though there should be.
        """
        ...

    def close(self) -> None: ...


def open_source(content: str, *, rate: float | None = None) -> Source:
    """Opens a camera, a stream, a clip or a pipe, and reads its first picture.

    Args:
        content: a camera's number or device file, a stream's address, a clip's or pipe's name; ``-``: standard input.
        rate: pictures per second that a camera is asked for, or at which a clip is played; None: its own.

    Raises:
        FileNotFoundError, ValueError: there is none, or it gives no picture.
    """
    path = Path("/dev/stdin" if content == "-" else content)
    if content.isdecimal() and not path.exists():
        return Camera(int(content), f"camera {content}", rate)
    if "://" in content or content.startswith("/dev/video"):
        return Camera(content, content, rate)
    if path.is_dir():
        raise ValueError(f"{content}: a folder is no camera: name a clip, a device number or a stream")
    if is_picture(path.name):
        raise ValueError(f"{content}: a picture is no camera: leave out --live")
    return Clip(path, rate)


class Camera:
    """A camera, or a stream over the network, by OpenCV.

    Args:
        source: a device's number or file, or an address.
        name: for errors.
        rate: pictures per second that are asked for; the camera may have others.

    Raises:
        FileNotFoundError: it cannot be opened.
        ValueError: it gives no picture.
    """

    paced = True
    time_base = TICK
    start = Fraction(0)
    pixel_aspect = Fraction(1)
    primaries = transfer = UNSPECIFIED
    sounds: Sequence[Any] = ()

    def __init__(self, source: int | str, name: str, rate: float | None = None) -> None:
        self.name = name
        # OpenCV would say on several lines of its own what the one error below says.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        device = isinstance(source, int) or source.startswith("/dev/")
        backend = cv2.CAP_V4L2 if device and sys.platform == "linux" else cv2.CAP_ANY
        self.capture = cv2.VideoCapture(source, backend)
        if not self.capture.isOpened():
            raise FileNotFoundError(f"{name}: {_why_not(device)}")
        if rate:
            self.capture.set(cv2.CAP_PROP_FPS, rate)
        # Or the first pictures would be old ones.
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = Fraction(rate or self.capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE).limit_denominator(1001)
        if not 0 < self.fps <= 1000:
            self.fps = Fraction(USUAL_RATE)
        try:
            self._first = self._read()
        except ValueError:
            self.close()
            raise ValueError(f"{name}: opened, but it gives no picture") from None

    def shots(self) -> Iterator[Shot]:
        """See ``Source``."""
        begin, last, pixels = time.monotonic(), -1, self._first
        while True:
            last = max(last + 1, round((time.monotonic() - begin) / TICK))
            yield Shot(partial(_from_bgr, pixels), last, round(1 / (self.fps * TICK)))
            pixels = self._read()

    def _read(self) -> NDArray[np.uint8]:
        there, pixels = self.capture.read()
        if not there:
            raise ValueError(f"{self.name}: it gives no more pictures")
        return np.asarray(pixels, np.uint8)

    def close(self) -> None:
        self.capture.release()


class Clip:
    """A video file, played as if a camera took it now, or a pipe that a video comes through; without its sound.

    Args:
        path: the clip.
        rate: pictures per second; None: as its timestamps say.

    Raises:
        FileNotFoundError, ValueError: see ``VideoReader``.
    """

    time_base = TICK
    start = Fraction(0)
    sounds: Sequence[Any] = ()

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.reader = VideoReader(path)
        self.paced = not path.is_file()
        self.step = Fraction(rate).limit_denominator(1001) if rate else None
        self.fps = self.step or self.reader.fps
        self.pixel_aspect = self.reader.pixel_aspect
        self.primaries, self.transfer = self.reader.primaries, self.reader.transfer

    def shots(self) -> Iterator[Shot]:
        """See ``Source``."""
        unit = self.reader.time_base / TICK
        begin, last = None, -1
        for number, (frame, pts, duration) in enumerate(self.reader.timed()):
            begin = pts if begin is None else begin
            due = round(number / (self.step * TICK)) if self.step else round((pts - begin) * unit)
            length = round(1 / (self.step * TICK)) if self.step else max(1, round(duration * unit))
            last = max(last + 1, due)
            yield Shot(partial(self.reader.picture, frame), last, length)

    def close(self) -> None:
        self.reader.close()


def _why_not(device: bool) -> str:
    if not device:
        return "no stream that can be opened"
    there = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*"))) or "none"
    return (
        f"no camera there, or it is in use, or closed to you (devices: {there}); a clip can stand for one with --live"
    )


def _from_bgr(pixels: NDArray[np.uint8]) -> Tensor:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, 2)
    return to_float(torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1]))).permute(2, 0, 1)[None].contiguous()
