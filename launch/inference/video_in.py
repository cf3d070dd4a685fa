"""Reads videos: frames one by one, upright and in RGB, with their timestamps, and the packets of sound in between.

Fields of interlaced videos are left as they are, HDR is not mapped to SDR, and only the first video stream counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gesso.common.extras import needing
from gesso.common.pixels import to_float

with needing("video"):
    import av
    from av.packet import Packet
    from av.stream import Disposition
    from av.video.reformatter import Colorspace, Interpolation

#: Containers that say how long they are, so that a missing end is seen.
DECLARING = {"mov", "matroska", "flv"}
#: Containers that are joined at any moment: what cannot be decoded before the first whole picture is no damage.
BROADCAST = {"mpegts", "mpeg"}
#: So much may be missing of the declared length, in seconds, besides the longest time between two packets.
SLACK = 0.1
#: Chroma by its position, not by copying the nearest; without these flags colours are off by some units.
SCALING = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)
#: FFmpeg's number for a matrix, transfer curve or primaries that the file does not name.
UNSPECIFIED = 2


class Frame(NamedTuple):
    """One picture of a video.

    Attributes:
        picture: [1, 3, H, W] in [-1, 1], upright RGB.
        pts: when it is shown, in the reader's ``time_base`` since the start of the file.
        duration: how long, likewise.
    """

    picture: Tensor
    pts: int
    duration: int


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Context manager: turns errors of FFmpeg into one line that names the file."""
    try:
        yield
    except av.FFmpegError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def unreadable(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: not a video that can be read ({reason})")


class VideoReader:
    """A video's frames, one by one; its file is open from here to ``close``.

    Args:
        path: any video that FFmpeg knows; a pipe that one comes through.

    Attributes:
        fps: mean frames per second, as the file says.
        size: width and height of the upright pictures.
        count: how many frames there are, if the file says so: good for a progress bar only.
        time_base: seconds of one tick of the timestamps.
        pixel_aspect: width of an upright pixel by its height: 1, but for some television.
        primaries: FFmpeg's number for the colours' primaries.
        transfer: and for their transfer curve.
        transparent: whether pictures have an alpha channel, which is left out.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no video, or not one picture of it can be decoded.
    """

    def __init__(self, path: Path) -> None:
        if not (path.is_file() or path.is_fifo()):
            raise FileNotFoundError(f"{path}: no such video")
        self.path = path
        with reading(path):
            # "file:", or a colon in the name makes a protocol of it; and no playlist reaches for the network.
            self.container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        videos = [s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic]
        if not videos:
            raise unreadable(self.path, "it has no video stream")
        self.video = videos[0]
        self.sounds = self.container.streams.audio
        if self.video.codec_context is None:
            raise unreadable(self.path, "no decoder for its video stream")
        self.video.thread_type = "AUTO"
        assert self.video.time_base is not None
        self.time_base = self.video.time_base
        self.fps = (self.video.average_rate or self.video.guessed_rate or Fraction(25)).limit_denominator(100_000)
        self.start = Fraction(self.container.start_time or 0, 1_000_000)
        length = self._declared()
        self.count = self.video.frames or (round(length * self.fps) if length else None)
        self._gap = self._end = 0.0
        self._packets = self._decode()
        # Now, so that a file of which nothing can be decoded fails before anything is computed or written.
        self._early: list[Packet[Any]] = []
        for item in self._packets:
            if isinstance(item, av.VideoFrame):
                self.first = item
                break
            self._early.append(item)
        else:
            raise unreadable(self.path, "it holds no picture")
        height, width = upright(np.empty((self.first.height, self.first.width)), self.first).shape
        self.size = (width, height)
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = aspect if upright(np.empty((1, 2)), self.first).shape == (1, 2) else 1 / aspect
        self.primaries, self.transfer = int(self.first.color_primaries), int(self.first.color_trc)
        alpha = any(component.is_alpha for component in self.first.format.components)
        # FFmpeg's own decoder of VP9 passes over the second picture that WebM has the alpha channel in.
        self.transparent = alpha or self.video.metadata.get("alpha_mode") == "1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def frames(self, sound: Callable[[Packet[Any]], None] | None = None) -> Iterator[Frame]:
        """The frames in the order in which they are shown; once only.

        Args:
            sound: gets the packets of sound as they are met; the first frame comes before the first of them.

        Raises:
            ValueError: the video is damaged, or its end is missing.
        """
        for item, pts, step in self.timed(sound):
            yield Frame(self.picture(item), pts, step)

    def timed(self, sound: Callable[[Packet[Any]], None] | None = None) -> Iterator[tuple[av.VideoFrame, int, int]]:
        """Like ``frames``, as they are decoded: each with its ``pts`` and ``duration``."""
        last: int | None = None
        start = round(self.start / self.time_base)
        for item in self._in_order():
            if not isinstance(item, av.VideoFrame):
                if sound is not None:
                    sound(item)
                continue
            step = item.duration or max(1, round(1 / (self.fps * self.time_base)))
            # Bare streams have no timestamps; and no two pictures are shown at once.
            due = 0 if last is None else last + step
            pts = due if item.pts is None else item.pts - start
            last = pts = pts if last is None else max(pts, last + 1)
            yield item, pts, step

    def _in_order(self) -> Iterator[av.VideoFrame | Packet[Any]]:
        yield self.first
        yield from self._early
        yield from self._packets

    def picture(self, frame: av.VideoFrame) -> Tensor:
        """A decoded frame as [1, 3, H, W] in [-1, 1], upright."""
        pixels = to_rgb(frame, self.first.width, self.first.height)
        image = np.ascontiguousarray(upright(pixels, self.first))
        return to_float(torch.from_numpy(image)).permute(2, 0, 1)[None].contiguous()

    def _decode(self) -> Iterator[av.VideoFrame | Packet[Any]]:
        """Pictures and packets of sound, in the file's order. Damage is an error, so that no half video results."""
        started = not self._is(BROADCAST)
        heard = {stream.index for stream in self.sounds}
        with reading(self.path):
            for packet in self.container.demux():
                self._note(packet)
                index = packet.stream.index
                if packet.is_corrupt and started and index in heard | {self.video.index}:
                    raise unreadable(self.path, f"broken off or damaged at {self._end:.2f} s")
                if index in heard:
                    yield packet
                if index != self.video.index:
                    continue
                try:
                    pictures = self.video.decode(packet)
                except av.InvalidDataError:
                    if started:
                        raise
                    continue
                for picture in pictures:
                    if picture.is_corrupt and started:
                        raise unreadable(self.path, f"damaged at {picture.time or 0:.2f} s")
                    if not picture.is_corrupt:
                        started = True
                        yield picture
        self._check_end()

    def _is(self, formats: set[str]) -> bool:
        return not formats.isdisjoint(self.container.format.name.split(","))

    def _declared(self) -> float | None:
        """The length that the file declares, in seconds: of its video or, if only that is given, of the whole file."""
        if self.video.duration:
            return float(self.video.duration * self.time_base)
        return self.container.duration / 1_000_000 if self.container.duration else None

    def _note(self, packet: Packet[Any]) -> None:
        """Notes the end of the file so far, from a packet."""
        own = packet.stream.index == self.video.index
        if packet.pts is None or packet.time_base is None or (self.video.duration and not own):
            return
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        if own:
            self._gap = max(self._gap, end - self._end)
        self._end = max(self._end, end)

    def _check_end(self) -> None:
        declared = self._declared()
        if declared is None or not self._is(DECLARING):
            return
        end = self._end - float((self.video.start_time or 0) * self.time_base if self.video.duration else 0)
        if end < declared - self._gap - SLACK:
            raise unreadable(self.path, f"broken off: {declared:.2f} s long, it says, and it ends at {end:.2f} s")


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """A decoded frame as uint8 [height, width, 3], whatever its matrix, range, depth and size."""
    matrix = None
    if frame.colorspace == UNSPECIFIED:
        # As players do: without a named matrix, the size decides.
        matrix = Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=matrix, interpolation=SCALING)
    return np.asarray(rgb.to_ndarray(), np.uint8)


def upright(image: NDArray[Any], frame: av.VideoFrame) -> NDArray[Any]:
    """[H, W, ...] as the frame's display matrix shows it: a quarter turn or more, mirrored or not."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5)
    if abs(int(b)) > abs(int(a)):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
